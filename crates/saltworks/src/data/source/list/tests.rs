use super::*;
use crate::data::open;
use crate::fuzz;

fn list(text: &str, name: &str) -> Result<ImageList> {
    ImageList::parse(text.as_bytes(), Path::new(name))
}

fn parsed(text: &str, name: &str) -> (Vec<String>, Vec<i32>, Vec<String>) {
    let list = list(text, name).unwrap();
    let mut labels = Labels::default();
    list.files.iter().for_each(|(_, label)| labels.push(label.as_deref()));
    let Classes { of: labels, names: classes, .. } = labels.finish();
    (list.files.iter().map(|(file, _)| file.display().to_string()).collect(), labels, classes)
}

fn refusal(text: &[u8]) -> String {
    ImageList::parse(text, Path::new("a.csv")).unwrap_err().to_string()
}

#[test]
fn quotes_line_ends_and_headers_are_those_of_the_rfc() {
    let text = "\u{feff}id,Label,FileName\r\n1,cat,\"a,\"\"b\"\".png\"\r\n\r\n\
                2,,\"c\nd.png\"\r\n3,ant,e.png";
    let (names, labels, classes) = parsed(text, "a.csv");
    assert_eq!(names, ["a,\"b\".png", "c\nd.png", "e.png"]);
    assert_eq!((labels, classes.join(" ")), (vec![1, -1, 0], "ant cat".into()));
}

#[test]
fn without_a_header_the_path_comes_first() {
    let (names, labels, classes) = parsed("a b.png\t2\nc.png\t0\n", "a.tsv");
    assert_eq!((names.join(" "), labels, classes.len()), ("a b.png c.png".into(), vec![2, 0], 3));
    let (names, labels, classes) = parsed("a b.png\n\nb.png\n", "a.txt");
    assert_eq!((names.len(), labels, classes.len()), (2, vec![-1, -1], 0));
}

#[test]
fn columns_are_found_under_the_names_that_people_give_them() {
    for header in ["file_name,label", "ImageId,Class", "Image Path,class_id", ",path,target"] {
        let index = if header.starts_with(',') { "0," } else { "" };
        let (names, labels, classes) = parsed(&format!("{header}\n{index}a.png,cat\n"), "a.csv");
        assert_eq!((names.join(" "), labels), ("a.png".into(), vec![0]), "{header}");
        assert_eq!(classes, ["cat"], "{header}");
    }
    let found = list("Unnamed: 0,path,width,label\n0,a.png,7,cat\n", "a.csv").unwrap();
    assert_eq!(found.notes.left_alone, ["the columns width"]);
}

#[test]
fn rows_to_validate_or_test_are_left_alone() {
    let text = "path,label,split\na.png,1,train\nb.png,2,test\nc.png,1, Val\nd.png,2,train\n";
    let json = r#"{"path": "a.png", "split": "train"}
{"path": "b.png", "split": "test"}
{"path": "c.png", "split": "Val"}
{"path": "d.png", "split": "train"}"#;
    for (text, name) in [(text, "a.csv"), (json, "a.jsonl")] {
        let found = list(text, name).unwrap();
        let files: Vec<_> = found.files.iter().map(|(file, _)| file.to_str().unwrap()).collect();
        assert_eq!(files, ["a.png", "d.png"], "{name}");
        let tests: Vec<_> = found.tests.iter().map(|(file, _)| file.to_str().unwrap()).collect();
        assert_eq!(tests, ["b.png", "c.png"], "{name}");
        let words = "with Val, test in the column split";
        assert_eq!(found.tests_named, words, "{name}");
        assert_eq!(found.notes, Notes::default());
    }
    // A test list, columns of other things, and the right one of several columns.
    let found = list("path,split\na.png,test\nb.png,test\n", "a.csv").unwrap();
    assert_eq!((found.files.len(), found.tests.len(), found.notes.left_alone.len()), (2, 0, 0));
    assert_eq!(found.notes.remarks, ["all images have test in the column split"]);
    for (header, values) in [("set", ["tea", "chess"]), ("subset", ["control", "test"])] {
        let text = format!("path,{header}\na.png,{}\nb.png,{}\n", values[0], values[1]);
        let found = list(&text, "a.csv").unwrap();
        let left = [format!("the columns {header}")];
        assert_eq!((found.files.len(), found.notes.left_alone), (2, left.into()));
        assert_eq!(found.notes.remarks.len(), usize::from(header == "subset"));
    }
    let two = "path,subset,split\na.png,in,train\nb.png,out,PublicTest\nc.png,in,\n";
    let found = list(two, "a.csv").unwrap();
    assert_eq!((found.files.len(), found.tests.len()), (2, 1));
    assert_eq!(found.notes.left_alone, ["the columns subset"]);
    let words = ["1 images with nothing in the column split are trained on"];
    assert_eq!(found.notes.remarks, words);
    let found = list("path,split\na.png,train\n./a.png,test\na.png,test\n", "a.csv").unwrap();
    assert_eq!((found.files.len(), found.tests.len()), (1, 0));
    let words = "the list names images both to train on and to test: 1, such as ./a.png";
    assert!(found.notes.remarks[0].starts_with(words), "{:?}", found.notes);
}

#[test]
fn a_list_of_several_parts_gives_those_to_test_where_tests_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.csv");
    let text = "path,label,split\na.png,0,train\nb.png,1,test\nc.png,1,train\nd.png,0,val\n";
    crate::files::write_whole(&path, text.as_bytes()).unwrap();
    for name in ["a.png", "b.png", "c.png", "d.png"] {
        image::GrayImage::new(1, 1).save(folder.path().join(name)).unwrap();
    }
    let read = |tests| ImageFiles::of_list(&path, Decoding::default(), tests).unwrap();
    let (train, tests) = (read(false), read(true));
    assert_eq!((train.files.len(), tests.files.len(), tests.files[0].1), (2, 1, 0));
    assert!(train.notes.left_alone[0].starts_with("2 images with test, val in the column split"));
    assert_eq!(tests.notes.left_alone, ["3 images of other parts of the list"]);
    let beside = crate::data::tests_beside(&path, &train).unwrap();
    let beside = beside.open(Decoding::default()).unwrap();
    assert_eq!(beside.describe(), crate::data::Source::describe(&tests));
    assert!(beside.describe().contains("the lines to test of a list, 1 images"));
}

#[test]
fn another_separator_is_found_by_the_first_line() {
    for text in [
        "path;label\na b.png;cat\n",
        "a b.png;cat\n",
        "path\tlabel\na b.png\tcat\n",
        "\u{feff}path;label\r\na b.png;cat\r\n",
    ] {
        let (names, labels, classes) = parsed(text, "a.csv");
        assert_eq!((names.join("|"), labels), ("a b.png".into(), vec![0]), "{text:?}");
        assert_eq!(classes, ["cat"], "{text:?}");
    }
    // As V-JEPA and Caffe write them.
    let (names, labels, _) = parsed("pics/a.png 0\npics/b.png 1\n", "a.csv");
    assert_eq!((names.join("|"), labels), ("pics/a.png|pics/b.png".into(), vec![0, 1]));
    let remarks = list("path;label\na.png;cat\n", "a.csv").unwrap().notes.remarks;
    assert_eq!(remarks, ["fields are separated by ';'"]);
}

#[test]
fn utf_16_with_a_mark_is_read() {
    let text = "path,label\nchaîne.png,cat\n";
    for [mark, bytes] in [
        [vec![0xFF, 0xFE], text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()],
        [vec![0xFE, 0xFF], text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>()],
    ] {
        let found = ImageList::parse(&[mark, bytes].concat(), Path::new("a.csv")).unwrap();
        assert_eq!(found.files, [(PathBuf::from("chaîne.png"), Some("cat".to_owned()))]);
    }
    assert!(refusal(&[0xFF, 0xFE, 0, 0xD8]).contains("line 1: is not UTF-16"));
}

#[test]
fn json_lines_are_a_list() {
    let text = "{\"file_name\": \"a.png\", \"label\": 1, \"text\": \"x\"}\n\n\
                {\"file_name\": \"b.png\", \"label\": null}\n\
                {\"label\": 0, \"file_name\": \"c.png\"}";
    let (names, labels, classes) = parsed(text, "a.jsonl");
    assert_eq!((names.join(" "), labels), ("a.png b.png c.png".into(), vec![1, -1, 0]));
    assert_eq!(classes, ["0", "1"]);
    assert_eq!(list(text, "a.jsonl").unwrap().notes.left_alone, ["the columns text"]);
    let refused = |text: &str| list(text, "a.jsonl").unwrap_err().to_string();
    assert!(refused("{\"file_name\": \"a.png\"}\n[1]").contains("line 2: is not a JSON object"));
    let message = refused("{\"url\": \"a.png\", \"label\": 1}");
    assert!(message.contains("line 1: \"label,url\" names no column of paths"), "{message}");
    let message = refused("{\"file_name\": \"a.png\", \"label\": [1]}");
    assert!(
        message.contains("line 1: has the label [1], expected a text or a number"),
        "{message}"
    );
    assert!(refused("{\"file_name\": 7}").contains("line 1: has the file_name 7, expected a path"));
}

#[test]
fn a_file_on_several_lines_is_one_image() {
    let found = list("path,label\na.png,cat\nb.png,dog\n.//a.png, cat\n", "a.csv").unwrap();
    assert_eq!(found.files.len(), 2);
    let words = "1 lines that repeat an image: line 4 (.//a.png, also in line 2)";
    assert_eq!(found.notes.left_alone, [words]);
    let message = refusal(b"a.png,1\nb.png,2\na.png,3\n");
    let words = "line 3: a.png is in line 1, too, with another label: 1 there, 3 here. Remove one";
    assert!(message.contains(words), "{message}");
}

#[test]
fn each_error_names_its_line() {
    assert!(refusal(b"a.png,1\n\"b\nc\",2\nd.png\n").contains("line 4: has 1 fields, expected 2"));
    assert!(refusal(b"a.png\n\"b.png\n").contains("line 2: has a quote that is not closed"));
    assert!(refusal(b"\"a.png\"x,1\n").contains("line 1: has text after a closing quote"));
    assert!(refusal(b"a.png,1,2\n").contains("line 1: has 3 fields and no header"));
    assert!(refusal(b"a.png,1\n,2\n").contains("line 2: has no path"));
    assert!(refusal(b"a.png\n\xFF.png\n").contains("line 2: is not UTF-8"));
    assert!(refusal(b"path,label\n").contains("lists 0 images"));
    let message = refusal(b"id,breed\n000bec,boston_bull\n");
    for words in ["line 1: \"id,breed\" names no column", "a column path, file, ", "image_id"] {
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn paths_start_at_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir(root.join("in")).unwrap();
    for (name, value) in [("in/1.png", 1), ("2.png", 2)] {
        let image = image::GrayImage::from_pixel(1, 1, image::Luma([value]));
        image.save(root.join(name)).unwrap();
    }
    let list = root.join("list.csv");
    let write = |text: &str| {
        std::io::Write::write_all(&mut std::fs::File::create(&list).unwrap(), text.as_bytes())
            .unwrap();
    };
    write(&format!("{}\nin/1.png\n", root.join("2.png").display()));
    let source = open(&list, [0; 3]).unwrap();
    let value = |index| source.read(index).unwrap().clip.data[0];
    assert_eq!((value(0), value(1), source.label(0)), (2, 1, -1));
    assert!(source.describe().ends_with("list.csv: a list of 2 images, no labels"));
    write("1.png\n");
    let message = open(&list, [0; 3]).err().unwrap().to_string();
    assert!(
        message.contains("its first image, ") && message.contains(", does not exist. "),
        "{message}"
    );
    for drive in ["C:\\images\\a.png", "d:/images/a.png"] {
        write(&format!("path,label\n{drive},cat\n"));
        let message = open(&list, [0; 3]).err().unwrap().to_string();
        assert!(message.contains(&format!("{drive}, is a path of another system")), "{message}");
    }
    write("image_path;category\n2.png;1\n");
    assert_eq!(open(&list, [0; 3]).unwrap().label(0), 1);
    write("path,label\nin\\1.png,cat\n .\\2.png ,dog\nin\\..\\2.png,dog\n");
    let source = open(&list, [0; 3]).unwrap();
    assert_eq!((source.len(), source.classes().join(" ")), (2, "cat dog".into()));
    let Notes { left_alone, remarks } = source.notes();
    assert!(left_alone[0].starts_with("1 lines that repeat an image: line 4 "), "{left_alone:?}");
    assert!(remarks[0].starts_with("3 paths are read with / for \\"), "{remarks:?}");
    write("pic,cls\n2.png,one\n");
    let message = open(&list, [0; 3]).err().unwrap().to_string();
    for words in ["line 1: \"pic,cls\" names no column", "a column path, ", "for labels label, "] {
        assert!(message.contains(words), "{message}");
    }
    write("category,image_path\n7,2.png\n0,gone.png\n");
    let source = open(&list, [0; 3]).unwrap();
    assert_eq!((source.label(0), source.label(1)), (7, 0));
    let message = source.read(1).unwrap_err().to_string();
    assert!(message.contains("gone.png: no such file. Fix or remove its line in"), "{message}");
}

#[test]
fn usual_names_of_columns_come_before_others() {
    let (paths, labels, classes) =
        parsed("image_id,filename,class_id,label\n100,a.png,4,x\n101,b.png,2,y\n", "a.csv");
    assert_eq!((paths, labels), (vec!["a.png".to_owned(), "b.png".to_owned()], vec![0, 1]));
    assert_eq!(classes, ["x", "y"]);
    let json = "{\"class_id\": 4, \"file_name\": \"a.png\", \"image_id\": 7, \"label\": \"x\"}\n";
    let (paths, _, classes) = parsed(json, "a.jsonl");
    assert_eq!((paths[0].as_str(), classes[0].as_str()), ("a.png", "x"));
}

#[test]
fn no_text_makes_the_reader_panic() {
    let seed = b"path,label\n\"a,\"\"b\"\".png\",cat\nc.png,dog\r\n\nd/e.png,\n";
    fuzz::mutate("list", seed, |bytes| {
        for name in ["no/a.csv", "no/a.tsv", "no/a.jsonl"] {
            if let Ok(found) = ImageList::parse(bytes, Path::new(name)) {
                assert!(found.files.len() <= bytes.len());
            }
        }
    });
    let seed =
        b"{\"file_name\": \"a.png\", \"label\": 1}\n{\"image\": \"b.png\", \"class\": \"x\"}\n";
    fuzz::mutate("jsonl", seed, |bytes| {
        let _ = ImageList::parse(bytes, Path::new("no/a.jsonl"));
    });
}

#[test]
fn a_pipe_in_a_list_is_not_waited_for_and_a_missing_file_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(folder.path().join("1.png")).status();
    assert!(pipe.unwrap().success());
    let list = folder.path().join("list.txt");
    let lines = b"1.png\n2.png\n";
    std::io::Write::write_all(&mut std::fs::File::create(&list).unwrap(), lines).unwrap();
    let source = open(&list, [0; 3]).unwrap();
    let message = |index| source.read(index).unwrap_err().to_string();
    assert!(message(0).contains("1.png: is not a file"), "{}", message(0));
    assert!(
        message(1).contains("2.png: no such file. Fix or remove its line in"),
        "{}",
        message(1)
    );
}

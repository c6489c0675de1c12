use super::*;
use crate::data::open;
use crate::fuzz;

fn parsed(text: &str, separator: u8) -> (Vec<String>, Vec<i32>, Vec<String>) {
    let (names, labels) = parse(text.as_bytes(), separator, Path::new("a.csv")).unwrap();
    let (labels, classes) = labels.finish();
    (names, labels, classes)
}

fn refusal(text: &[u8]) -> String {
    parse(text, b',', Path::new("a.csv")).err().unwrap().to_string()
}

#[test]
fn quotes_line_ends_and_headers_are_those_of_the_rfc() {
    let text = "\u{feff}id,Label,FileName\r\n1,cat,\"a,\"\"b\"\".png\"\r\n\r\n\
                2,,\"c\nd.png\"\r\n3,ant,e.png";
    let (names, labels, classes) = parsed(text, b',');
    assert_eq!(names, ["a,\"b\".png", "c\nd.png", "e.png"]);
    assert_eq!((labels, classes.join(" ")), (vec![1, -1, 0], "ant cat".into()));
}

#[test]
fn without_a_header_the_path_comes_first() {
    let (names, labels, classes) = parsed("a b.png\t2\nc.png\t0\n", b'\t');
    assert_eq!((names.join(" "), labels, classes.len()), ("a b.png c.png".into(), vec![2, 0], 3));
    let (names, labels, classes) = parsed("a.png\n\nb.png\n", b'\t');
    assert_eq!((names.len(), labels, classes.len()), (2, vec![-1, -1], 0));
}

#[test]
fn each_error_names_its_line() {
    assert!(refusal(b"a.png,1\n\"b\nc\",2\nd.png\n").contains("line 4: has 1 fields, expected 2"));
    assert!(refusal(b"a.png,1\nb.png,2\na.png,3\n").contains("line 3: a.png is in line 1, too"));
    assert!(refusal(b"a.png\nb.png\n.//a.png\n").contains(".//a.png is in line 1, too"));
    assert!(refusal(b"a.png\n\"b.png\n").contains("line 2: has a quote that is not closed"));
    assert!(refusal(b"\"a.png\"x,1\n").contains("line 1: has text after a closing quote"));
    assert!(refusal(b"a.png,1,2\n").contains("line 1: has 3 fields and no header"));
    assert!(refusal(b"a.png,1\n,2\n").contains("line 2: has no path"));
    assert!(refusal(b"a.png\n\xFF.png\n").contains("line 2: is not UTF-8"));
    assert!(refusal(b"path,label\n").contains("lists 0 images"));
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
    write("image_path;category\n2.png;1\n");
    let message = open(&list, [0; 3]).err().unwrap().to_string();
    assert!(message.contains("separated by semicolons, expected commas in a .csv"), "{message}");
    write("img,cls\n2.png,one\n");
    let message = open(&list, [0; 3]).err().unwrap().to_string();
    for words in ["line 1, \"img,cls\", names no column", "expected path, ", "for labels label, "] {
        assert!(message.contains(words), "{message}");
    }
    write("category,image_path\n7,2.png\n0,gone.png\n");
    let source = open(&list, [0; 3]).unwrap();
    assert_eq!((source.label(0), source.label(1)), (7, 0));
    let message = source.read(1).unwrap_err().to_string();
    assert!(message.contains("gone.png: no such file. Fix or remove its line in"), "{message}");
}

#[test]
fn no_text_makes_the_reader_panic() {
    let seed = b"path,label\n\"a,\"\"b\"\".png\",cat\nc.png,dog\r\n\nd/e.png,\n";
    fuzz::mutate("list", seed, |bytes| {
        for separator in [b',', b'\t'] {
            if let Ok((names, labels)) = parse(bytes, separator, Path::new("a.csv")) {
                assert!(names.len() <= bytes.len());
                assert_eq!(labels.finish().0.len(), names.len());
            }
        }
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

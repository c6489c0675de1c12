//! Folders of image files. The sub-folders directly inside are the classes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::data::source::image_file::{self, ImageFiles, extension};
use crate::data::source::kind::is_tar;
use crate::data::{Background, Error, Result};

impl ImageFiles {
    /// The images of a folder and its sub-folders in the order of their paths. A file at any depth
    /// below the sub-folder `cats` has the class `cats`. A file directly inside the folder has no
    /// class.
    pub fn of_folder(root: &Path, background: Background) -> Result<Self> {
        let mut listing = FolderListing::default();
        let mut classes = Vec::new();
        let mut files = Vec::new();
        listing.is_new(root)?;
        let (mut loose, folders) = listing.entries(root)?;
        loose.sort();
        files.extend(loose.into_iter().map(|path| (path, -1)));
        for folder in folders {
            let mut found = Vec::new();
            listing.walk(&folder, &mut found)?;
            if found.is_empty() {
                continue;
            }
            found.sort();
            let class = classes.len() as i32;
            files.extend(found.into_iter().map(|path| (path, class)));
            classes.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        if files.is_empty() {
            return Err(listing.no_images(root));
        }
        let left_alone = listing.others();
        Ok(Self { path: root.into(), kind: "", files, classes, background, left_alone })
    }
}

/// What was found besides the images.
#[derive(Default)]
struct FolderListing {
    /// The number of files that are not images, by extension.
    others: BTreeMap<String, usize>,
    /// Folders that hold tar archives.
    archives: BTreeSet<PathBuf>,
    /// Real paths of the folders walked. A link to one of them is not followed. Otherwise its
    /// images would count twice: in training and in the held-out part.
    seen: BTreeSet<PathBuf>,
}

impl FolderListing {
    /// Adds the images below a folder, at any depth.
    fn walk(&mut self, folder: &Path, images: &mut Vec<PathBuf>) -> Result<()> {
        if self.is_new(folder)? {
            let (files, folders) = self.entries(folder)?;
            images.extend(files);
            for folder in folders {
                self.walk(&folder, images)?;
            }
        }
        Ok(())
    }

    /// Records a folder. True if it is new.
    fn is_new(&mut self, folder: &Path) -> Result<bool> {
        let real = fs::canonicalize(folder).map_err(|error| Error::read(folder, error))?;
        Ok(self.seen.insert(real))
    }

    /// The images and the sorted sub-folders directly inside a folder, without hidden ones.
    fn entries(&mut self, folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(|error| Error::read(folder, error))? {
            let entry = entry.map_err(|error| Error::read(folder, error))?;
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let extension = extension(&path);
            // Follows links. An entry that is neither a file nor a folder (a pipe, a broken link)
            // is counted with the others.
            let kind = fs::metadata(&path).map(|metadata| metadata.file_type());
            if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
                folders.push(path);
            } else if kind.is_ok_and(|kind| kind.is_file()) && image_file::is_image(&path) {
                files.push(path);
            } else {
                if is_tar(&path) {
                    self.archives.insert(folder.to_owned());
                }
                *self.others.entry(extension).or_default() += 1;
            }
        }
        folders.sort();
        Ok((files, folders))
    }

    /// The files that are not images, by extension, the most frequent first.
    fn others(&self) -> String {
        let mut counts: Vec<_> = self.others.iter().collect();
        counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let count = |(extension, count): &(&String, &usize)| match extension.as_str() {
            "" => format!("{count} without extension"),
            extension => format!("{count} .{extension}"),
        };
        let found: Vec<_> = counts.iter().take(5).map(count).collect();
        found.join(", ")
    }

    fn no_images(&self, root: &Path) -> Error {
        let is_training = |folder: &&PathBuf| {
            folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("train"))
        };
        let archives = self.archives.iter().find(is_training).or(self.archives.first());
        let advice = match archives {
            Some(folder) => format!("For the archives set data.path={}", folder.display()),
            None if self.others.contains_key("arrow") => {
                "Arrow files come from `save_to_disk` of Hugging Face's datasets. Write parquet, \
                 as in `datasets.load_from_disk(FOLDER).to_parquet(\"train.parquet\")`"
                    .to_owned()
            }
            None if self.others.is_empty() => {
                "Set data.path to the folder of the images".to_owned()
            }
            None => "Convert them to PNG, JPEG or WebP, or choose another folder".to_owned(),
        };
        let found = Some(self.others()).filter(|found| !found.is_empty());
        let found = found.unwrap_or_else(|| "no file".to_owned());
        Error::NoImages { path: root.into(), found, advice }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Source;

    const BLACK: Background = [0; 3];

    fn image(path: &Path, value: u8) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::GrayImage::from_pixel(4, 4, image::Luma([value])).save(path).unwrap();
    }

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap();
    }

    #[test]
    fn sub_folders_are_classes_in_sorted_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (name, value) in
            [("dogs/b.PNG", 2), ("dogs/a.jpeg", 1), ("cats/deep/er/c.JPG", 3), (".hidden/x.png", 9)]
        {
            image(&root.join(name), value);
        }
        touch(&root.join("empty/notes.txt"));
        let source = ImageFiles::of_folder(root, BLACK).unwrap();
        assert_eq!(source.classes(), ["cats", "dogs"]);
        let labels: Vec<_> = (0..source.len()).map(|index| source.label(index)).collect();
        assert_eq!(labels, [0, 1, 1]);
        let sample = source.read(2).unwrap();
        assert!(sample.name.ends_with("dogs/b.PNG"), "{}", sample.name);
        assert_eq!((sample.clip.data[0], sample.clip.channels), (2, 1));
        assert!(source.describe().ends_with("3 images, 2 classes"));
    }

    #[cfg(unix)]
    #[test]
    fn no_image_counts_twice_through_links_and_a_pipe_is_no_image() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        image(&root.join("cats/1.png"), 1);
        image(&root.join("dogs/2.png"), 2);
        for (to, link) in [("cats", "more"), (".", "all"), ("../dogs", "cats/pups")] {
            std::os::unix::fs::symlink(to, root.join(link)).unwrap();
        }
        let pipe = std::process::Command::new("mkfifo").arg(root.join("dogs/3.png")).status();
        assert!(pipe.unwrap().success());
        assert_eq!(ImageFiles::of_folder(root, BLACK).unwrap().len(), 2);
    }

    #[test]
    fn a_flat_folder_has_no_labels() {
        let folder = tempfile::tempdir().unwrap();
        image(&folder.path().join("2.png"), 2);
        image(&folder.path().join("1.png"), 1);
        let source = ImageFiles::of_folder(folder.path(), BLACK).unwrap();
        assert_eq!((source.label(0), source.classes().len(), source.len()), (-1, 0, 2));
        assert_eq!(source.read(0).unwrap().clip.data[0], 1);
    }

    #[test]
    fn a_folder_without_images_says_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let message = || ImageFiles::of_folder(folder.path(), BLACK).unwrap_err().to_string();
        assert!(
            message().contains("0 images: looked for .png .jpg .jpeg .webp .bmp .tif .tiff"),
            "{}",
            message()
        );
        assert!(message().contains("found no file"), "{}", message());
        (0..3).for_each(|index| touch(&folder.path().join(format!("a/{index}.GIF"))));
        touch(&folder.path().join("README"));
        assert!(message().contains("found 3 .gif, 1 without extension"), "{}", message());
        ["x/val/1.tar", "x/train/2.tar"].iter().for_each(|name| touch(&folder.path().join(name)));
        assert!(message().contains("For the archives set data.path="), "{}", message());
        assert!(message().ends_with("/x/train"), "{}", message());
    }

    #[test]
    fn a_cut_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cats/1.jpg");
        image(&path, 7);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        let source = ImageFiles::of_folder(folder.path(), BLACK).unwrap();
        let message = source.read(0).unwrap_err().to_string();
        assert!(message.contains("cats/1.jpg: JPEG is cut off after"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_back_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        image(&folder.path().join("cats/1.png"), 7);
        std::os::unix::fs::symlink("..", folder.path().join("cats/again")).unwrap();
        std::os::unix::fs::symlink(".", folder.path().join("cats/self")).unwrap();
        let source = ImageFiles::of_folder(folder.path(), BLACK).unwrap();
        assert!(source.len() <= 2, "{}", source.len());
    }
}

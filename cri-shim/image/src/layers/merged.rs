//! Layers as one tree, as overlayfs shows them: the topmost layer that has a name decides, a whiteout or
//! an opaque folder hides what is below it. Lookups go by descriptor, one name at a time; symbolic links on
//! the way are followed inside the tree and never out of it. Reads only.

use crate::error::ImageError;
use crate::unpack::writer::{OPAQUE, shown};
use shim_model::limits;
use shim_sys::error::SysError;
use shim_sys::path::{self, Meta};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

/// The folders that make up one folder of the tree, topmost first.
type Folder = Vec<Rc<OwnedFd>>;

/// Layers, one over the other.
#[derive(Debug)]
pub struct Merged {
    root: Folder,
    /// The folder that was looked into last: names come sorted, and neighbours share it.
    last: Option<(Vec<Vec<u8>>, Folder)>,
}

/// What a path leads to.
#[derive(Debug)]
pub struct Found {
    /// Its path without links on the way.
    pub path: Vec<Vec<u8>>,
    /// The folder of the layer that has it; its name there is the path's last one.
    pub folder: Rc<OwnedFd>,
    /// What it is.
    pub meta: Meta,
}

impl Found {
    /// Its name in its folder.
    pub fn name(&self) -> &[u8] {
        self.path.last().map_or(b"", Vec::as_slice)
    }
}

impl Merged {
    /// Layers by their folders, bottom first.
    pub fn open(layers: &[PathBuf]) -> Result<Self, ImageError> {
        let opened = layers.iter().rev().map(|layer| path::open_folder(layer).map(Rc::new));
        let root: Result<Folder, SysError> = opened.collect();
        let root = root.map_err(ImageError::system("open the layers below"))?;
        Ok(Self { root, last: None })
    }

    /// The folders of one folder of the tree, topmost first; none if there is no such folder. Links are not
    /// followed.
    pub fn folder(&mut self, at: &[Vec<u8>]) -> Result<Folder, ImageError> {
        if let Some((known, folder)) = &self.last
            && known == at
        {
            return Ok(folder.clone());
        }
        let mut folder = self.root.clone();
        for (depth, part) in at.iter().enumerate() {
            let known = self.last.as_ref().filter(|(known, _)| at.get(..=depth) == Some(known));
            folder = match known {
                Some((_, known)) => known.clone(),
                None => enter(&folder, part).map_err(failed(part))?,
            };
        }
        self.last = Some((at.to_vec(), folder.clone()));
        Ok(folder)
    }

    /// What a path stands for; `None` if there is nothing.
    pub fn find(&mut self, path: &[u8]) -> Result<Option<Found>, ImageError> {
        let split = |text: &[u8]| -> Vec<Vec<u8>> {
            text.split(|b| *b == b'/').filter(|p| !p.is_empty()).map(<[u8]>::to_vec).collect()
        };
        let mut todo: VecDeque<Vec<u8>> = split(path).into();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut links = 0usize;
        while let Some(part) = todo.pop_front() {
            match part.as_slice() {
                b"." => continue,
                b".." => {
                    done.pop();
                    continue;
                }
                _ => {}
            }
            let folder = self.folder(&done)?;
            let Some((at, meta)) = see(&folder, &part).map_err(failed(&part))? else {
                return Ok(None);
            };
            if todo.is_empty() {
                done.push(part);
                return Ok(Some(Found { path: done, folder: at, meta }));
            }
            if meta.is_link() {
                links = links.saturating_add(1);
                if links > limits::SYMLINKS {
                    let what = format!("the symbolic links on the way to {}", shown(path));
                    return Err(ImageError::Bound { what, bound: limits::SYMLINKS as u64 });
                }
                let text = path::read_link(&*at, &part).map_err(failed(&part))?;
                if text.starts_with(b"/") {
                    done.clear();
                }
                split(&text).into_iter().rev().for_each(|part| todo.push_front(part));
            } else if meta.is_folder() {
                done.push(part);
            } else {
                return Ok(None);
            }
        }
        Ok(None)
    }
}

/// The topmost thing of this name, and the folder that has it.
fn see(folder: &Folder, name: &[u8]) -> Result<Option<(Rc<OwnedFd>, Meta)>, SysError> {
    for layer in folder {
        if let Some(meta) = path::look(&**layer, name)? {
            return Ok((!is_whiteout(&meta)).then(|| (Rc::clone(layer), meta)));
        }
    }
    Ok(None)
}

/// The folders of this name, down to the first one that hides those below it.
fn enter(folder: &Folder, name: &[u8]) -> Result<Folder, SysError> {
    let mut inner = Folder::new();
    for layer in folder {
        match path::look(&**layer, name)? {
            None => continue,
            Some(meta) if meta.is_folder() => {}
            Some(_) => break,
        }
        let opened = path::open_beneath(&**layer, name)?;
        let hides = path::has_xattr(&opened, OPAQUE)?;
        inner.push(Rc::new(opened));
        if hides {
            break;
        }
    }
    Ok(inner)
}

/// What overlayfs takes for "nothing, and nothing below either".
fn is_whiteout(meta: &Meta) -> bool {
    meta.is_character() && meta.device == (0, 0)
}

fn failed(name: &[u8]) -> impl FnOnce(SysError) -> ImageError {
    ImageError::system(format!("look for {} in the layers below", shown(name)))
}

#[cfg(test)]
mod tests {
    use super::Merged;
    use shim_sys::path::{self, Special};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn made(layers: &[&Path]) -> Merged {
        Merged::open(&layers.iter().map(|layer| layer.to_path_buf()).collect::<Vec<_>>()).unwrap()
    }

    fn found(merged: &mut Merged, at: &str) -> String {
        let found = merged.find(at.as_bytes()).unwrap();
        found.map_or_else(String::new, |found| String::from_utf8(found.path.join(&b'/')).unwrap())
    }

    #[test]
    fn root_the_topmost_decides_and_whiteouts_hide() {
        if std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m)).ok()
            != Some(0)
        {
            eprintln!("skipped: whiteouts need root");
            return;
        }
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [low, mid, top] = [&dirs[0], &dirs[1], &dirs[2]].map(tempfile::TempDir::path);
        for (layer, name) in
            [(low, "a"), (low, "b"), (low, "c"), (mid, "a"), (mid, "d"), (top, "e")]
        {
            std::fs::create_dir_all(layer.join("x")).unwrap();
            std::fs::write(layer.join("x").join(name), name).unwrap();
        }
        std::fs::create_dir(low.join("y")).unwrap();
        std::fs::write(low.join("y/z"), "").unwrap();
        let x = path::open_folder(&mid.join("x")).unwrap();
        path::make_special(&x, b"b", Special::Character(0, 0)).unwrap();
        let root = path::open_folder(top).unwrap();
        path::make_special(&root, b"y", Special::Character(0, 0)).unwrap();
        let mut merged = made(&[low, mid, top]);
        for (at, there) in [
            ("x/a", true),
            ("x/b", false),
            ("x/c", true),
            ("x/d", true),
            ("x/e", true),
            ("y", false),
            ("y/z", false),
            ("x/a/b", false),
            ("nothing", false),
        ] {
            assert_eq!(found(&mut merged, at), if there { at } else { "" }, "{at}");
        }
        path::set_xattr(&x, b"trusted.overlay.opaque", b"y").unwrap();
        let mut merged = made(&[low, mid, top]);
        assert_eq!(found(&mut merged, "x/c"), "");
        assert_eq!(found(&mut merged, "x/a"), "x/a");
    }

    #[test]
    fn links_are_followed_inside_and_never_out() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [low, top] = [&dirs[0], &dirs[1]].map(tempfile::TempDir::path);
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "").unwrap();
        std::fs::create_dir_all(low.join("usr/lib")).unwrap();
        std::fs::write(low.join("usr/lib/file"), "").unwrap();
        for (name, to) in [
            ("lib", "usr/lib"),
            ("abs", "/usr/lib"),
            ("up", "../../../usr"),
            ("loop", "loop"),
            ("out", outside.path().to_str().unwrap()),
        ] {
            symlink(to, top.join(name)).unwrap();
        }
        symlink("lib/file", top.join("last")).unwrap();
        let mut merged = made(&[low, top]);
        for at in ["lib/file", "abs/file", "up/lib/file", "./usr/../lib/file"] {
            assert_eq!(found(&mut merged, at), "usr/lib/file", "{at}");
        }
        assert_eq!(found(&mut merged, "out/secret"), "");
        assert!(merged.find(b"loop/x").is_err());
        // The last one is named itself.
        assert!(merged.find(b"last").unwrap().unwrap().meta.is_link());
    }
}

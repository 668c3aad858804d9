//! The images of the comparison, made once into the cache: a small one to run, the peers' pause image,
//! one of twelve layers, one of many small files. Contents come from a generator with a fixed seed, so
//! that they are the same everywhere and compress about as well as real ones. `registry.rs` stores them.

use crate::registry::{Blob, Image, Layer, Store};
use anyhow::{Context, Result};
use std::path::Path;

/// What every container runs.
pub(crate) const SMALL: &str = "127.0.0.1:5000/bench/small:1";
/// What the peers hold a pod's namespaces with.
pub(crate) const PAUSE: &str = "127.0.0.1:5000/bench/pause:1";
/// Twelve layers, about 400 MB unpacked.
pub(crate) const LAYERS: &str = "127.0.0.1:5000/bench/layers:1";
/// 40,000 small files in one layer.
pub(crate) const FILES: &str = "127.0.0.1:5000/bench/files:1";

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 4] = ["sh", "sleep", "true", "cat"];

/// Of each of the twelve layers: how many files of which size.
const LAYER_FILES: [(usize, usize); 3] = [(2, 8 << 20), (40, 256 << 10), (1500, 4 << 10)];
/// Folders of the image of small files, and files in each.
const FOLDERS: (usize, usize) = (400, 100);

/// Makes what the cache does not have yet; the large ones only where they are asked for. `pause` is a
/// static program that waits for signals.
pub(crate) fn make(store: &Store, pause: &Path, large: bool) -> Result<()> {
    if !store.has(SMALL) {
        small(store)?;
    }
    if !store.has(PAUSE) {
        let program = std::fs::read(pause).with_context(|| format!("read {}", pause.display()))?;
        let mut layer = store.layer()?;
        layer.file("pause", &program, 0o755)?;
        store.put(&Image { name: PAUSE, layers: vec![layer.finish()?], command: &["/pause"] })?;
    }
    if large && !store.has(LAYERS) {
        println!("making the image of twelve layers (once)");
        store.put(&Image { name: LAYERS, layers: twelve(store)?, command: &["sh"] })?;
    }
    if large && !store.has(FILES) {
        println!("making the image of small files (once)");
        store.put(&Image { name: FILES, layers: vec![many(store)?], command: &["sh"] })?;
    }
    Ok(())
}

fn small(store: &Store) -> Result<()> {
    let program = std::fs::read(BUSYBOX).with_context(|| format!("read {BUSYBOX}"))?;
    let mut layer = store.layer()?;
    layer.folder("bin")?;
    layer.file("bin/busybox", &program, 0o755)?;
    for applet in APPLETS {
        layer.link(&format!("bin/{applet}"), "busybox")?;
    }
    layer.folder("etc")?;
    layer.file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n", 0o644)?;
    layer.folder("tmp")?;
    store.put(&Image { name: SMALL, layers: vec![layer.finish()?], command: &["sh"] })
}

fn twelve(store: &Store) -> Result<Vec<Blob>> {
    let mut text = Text::new();
    let mut layers = Vec::new();
    for number in 0..12 {
        let mut layer = store.layer()?;
        layer.folder(&format!("l{number}"))?;
        for (count, size) in LAYER_FILES {
            fill(&mut layer, &mut text, &format!("l{number}/{size}"), (count, size))?;
        }
        layers.push(layer.finish()?);
    }
    Ok(layers)
}

fn fill(
    layer: &mut Layer<'_>,
    text: &mut Text,
    at: &str,
    (count, size): (usize, usize),
) -> Result<()> {
    layer.folder(at)?;
    for file in 0..count {
        layer.file(&format!("{at}/{file}"), &text.bytes(size), 0o644)?;
    }
    Ok(())
}

fn many(store: &Store) -> Result<Blob> {
    let mut text = Text::new();
    let mut layer = store.layer()?;
    for folder in 0..FOLDERS.0 {
        layer.folder(&format!("d{folder}"))?;
        for file in 0..FOLDERS.1 {
            let size = 200 + text.number(4000);
            layer.file(&format!("d{folder}/f{file}"), &text.bytes(size), 0o644)?;
        }
    }
    layer.finish()
}

/// So many words make up three quarters of it.
const OFTEN: usize = 400;

/// Words of a made-up language: what gzip makes of them is a third, as of programs and text.
struct Text {
    state: u64,
    words: Vec<Vec<u8>>,
}

impl Text {
    fn new() -> Self {
        let mut text = Self { state: 0x5ca1_ab1e_0dd5_eed5, words: Vec::new() };
        for _ in 0..20_000 {
            let length = 3 + text.number(9);
            let mut word: Vec<u8> = (0..length).map(|_| text.byte()).collect();
            word.push(b' ');
            text.words.push(word);
        }
        text
    }

    /// Marsaglia's xorshift with 64 bits; below `end`.
    fn number(&mut self, end: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from((self.state >> 11) % end).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.number(200)).unwrap_or_default().wrapping_add(32)
    }

    fn bytes(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 16);
        while bytes.len() < size {
            let few = self.number(4) > 0;
            let at = self.number(if few { OFTEN } else { self.words.len() });
            let Some(word) = self.words.get(at) else { continue };
            bytes.extend_from_slice(word);
        }
        bytes.truncate(size);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn contents_are_the_same_every_time_and_compress_like_real_ones() {
        let (mut one, mut other) = (Text::new(), Text::new());
        let bytes = one.bytes(1 << 20);
        assert_eq!((bytes.len(), &bytes), (1 << 20, &other.bytes(1 << 20)));
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(&bytes).unwrap();
        let share = packed.finish().unwrap().len() * 100 / bytes.len();
        assert!((25..60).contains(&share), "packed to {share} %");
    }
}

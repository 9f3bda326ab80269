//! A reproducible tree of small files: 20 x 20 x 10 folders three deep, files of 2 to 6 KiB.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A repeatable stream of numbers (SplitMix64), so that every run reads the same bytes.
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    pub const fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }
}

/// Where file number `index` of a tree lies.
pub fn file(root: &Path, index: usize) -> PathBuf {
    folder(root, index % 4000).join(format!("file{index:06}.dat"))
}

fn folder(root: &Path, leaf: usize) -> PathBuf {
    root.join(format!("d{:02}/e{:02}/f{:02}", leaf / 200, leaf / 10 % 20, leaf % 10))
}

/// Makes the tree, or leaves it as it is when a tree of that many files was finished there before.
pub fn make(root: &Path, files: usize) -> anyhow::Result<()> {
    let finished = root.with_extension(format!("{files}.finished"));
    if finished.exists() && file(root, files - 1).exists() {
        return Ok(());
    }
    for leaf in 0..4000 {
        let path = folder(root, leaf);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    }
    let mut numbers = Numbers::from_seed(20_240_601);
    let pool: Vec<u8> = (0..1 << 17).flat_map(|_| numbers.draw().to_le_bytes()).collect();
    let mut contents = Vec::with_capacity(8192);
    for index in 0..files {
        let size = 2048 + numbers.below(4096) as usize;
        let offset = numbers.below((pool.len() - size) as u64) as usize;
        contents.clear();
        contents.extend_from_slice(format!("{index:08}").as_bytes());
        contents.extend_from_slice(&pool[offset..offset + size - 8]);
        let path = file(root, index);
        fs::write(&path, &contents).with_context(|| format!("writing {}", path.display()))?;
    }
    fs::write(&finished, "").with_context(|| format!("writing {}", finished.display()))
}

//! What the pages of `docs/` tell people to write, for the tests that show that it works.

use std::path::Path;

/// The first block in this language on a page.
pub fn block(page: &str, language: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("docs").join(page)).unwrap();
    let mut lines = text.lines().skip_while(|line| *line != format!("```{language}")).skip(1);
    let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
    assert!(!block.is_empty(), "{page} has no block in {language}");
    block.join("\n") + "\n"
}

//! Collects the pages of docs/errors/ for `cairn explain`.

use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pages = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../docs/errors");
    println!("cargo::rerun-if-changed={}", pages.display());
    let mut names: Vec<_> = fs::read_dir(&pages)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".md").map(str::to_owned))
        .collect();
    names.sort();
    let mut table = String::from("/// Code and page, in order of the codes.\nconst PAGES: &[(&str, &str)] = &[\n");
    for name in names {
        let page = fs::canonicalize(pages.join(format!("{name}.md")))?;
        table.push_str(&format!("    ({name:?}, include_str!({page:?})),\n"));
    }
    table.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("error_pages.rs"), table)?;
    Ok(())
}

//! Collects what the API's types say of themselves, for OpenAPI: the doc comments of `k8s-openapi`, which are generated from
//! upstream's own documents, so that no copy of them is kept here.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

/// The version of the API, as `k8s-openapi` names its folders.
const VERSION: &str = "v1_36";

/// By type: its description, and those of its fields by their JSON names.
type Documentation = BTreeMap<String, (String, BTreeMap<String, String>)>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../Cargo.lock");
    let mut found = Documentation::new();
    read_folder(&sources()?.join("src").join(VERSION), &mut found)?;
    if found.len() < 500 {
        return Err(format!("only {} documented types were found in k8s-openapi", found.len()).into());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?).join("documentation.json.gz");
    let mut packed = GzEncoder::new(fs::File::create(out)?, Compression::best());
    packed.write_all(serde_json::to_string(&found)?.as_bytes())?;
    packed.finish()?;
    Ok(())
}

/// Where the sources of `k8s-openapi` are. Not `--offline`: a build has only fetched what it needs itself, and on a new machine
/// that is not all that the lock file names.
fn sources() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let output = Command::new(env::var("CARGO")?)
        .args(["metadata", "--format-version=1", "--locked"])
        .arg(format!("--filter-platform={}", env::var("TARGET")?))
        .current_dir(env::var("CARGO_MANIFEST_DIR")?)
        .output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("cargo metadata: {e}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages
        .into_iter()
        .find(|p| p["name"] == "k8s-openapi")
        .and_then(|p| p["manifest_path"].as_str())
        .ok_or("k8s-openapi is no dependency")?;
    Ok(Path::new(manifest).parent().map(Path::to_path_buf).unwrap_or_default())
}

fn read_folder(folder: &Path, found: &mut Documentation) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_folder(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            read_type(&fs::read_to_string(path)?, found);
        }
    }
    Ok(())
}

/// Reads one generated file: `// Generated from definition NAME`, the type's doc comment, and its fields with theirs.
fn read_type(text: &str, found: &mut Documentation) {
    let Some(name) = text.lines().find_map(|l| l.strip_prefix("// Generated from definition ")) else {
        return;
    };
    // `"jsonName" => Field::Key_rust_name,`
    let json_names: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| {
            let (json, rust) = line.trim().strip_prefix('"')?.split_once("\" => Field::Key_")?;
            Some((rust.trim_end_matches(','), json))
        })
        .collect();
    let (mut of_type, mut fields) = (String::new(), BTreeMap::new());
    let mut comment: Vec<&str> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim();
        if let Some(words) = line.strip_prefix("///") {
            comment.push(words.strip_prefix(' ').unwrap_or(words));
        } else if let Some(field) = line.strip_prefix("pub ").filter(|_| inside) {
            let rust = field.split(':').next().unwrap_or_default().trim_start_matches("r#");
            if let Some(json) = json_names.get(rust) {
                fields.insert((*json).to_owned(), comment.join("\n"));
            }
            comment.clear();
        } else if line.starts_with("pub struct ") || line.starts_with("pub enum ") {
            of_type = comment.join("\n");
            comment.clear();
            inside = true;
        } else if line == "}" && inside {
            break;
        }
    }
    found.insert(name.trim().to_owned(), (of_type, fields));
}

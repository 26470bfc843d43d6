//! Packs the facts: they are text with much repetition, and part of the program.

use std::io::Write;
use std::path::PathBuf;
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for name in ["kubernetes-v1.36.json", "protobuf-v1.36.json"] {
        let source = PathBuf::from("schema").join(name);
        println!("cargo::rerun-if-changed={}", source.display());
        let out = PathBuf::from(env::var("OUT_DIR")?).join(format!("{name}.gz"));
        let mut packed = GzEncoder::new(fs::File::create(out)?, Compression::best());
        packed.write_all(&fs::read(source)?)?;
        packed.finish()?;
    }
    Ok(())
}

//! The demo's image: one static program, built by our own builder.

use std::path::{Path, PathBuf};

use base::{Clock, SystemClock};
use image::ImageStore;
use image::build::{BuildRequest, NoRun};

use super::{DemoError, IMAGE};
use crate::config::ServerArgs;
use crate::images;

const DOCKERFILE: &str = "\
FROM scratch
COPY gantry-demo /gantry-demo
USER 65532:65532
EXPOSE 8080
ENTRYPOINT [\"/gantry-demo\"]
";

/// Where the demo's program is: where the caller says, or beside this one.
pub(super) fn program(given: Option<&Path>) -> Result<PathBuf, DemoError> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => {
            let own = std::env::current_exe().map_err(|source| DemoError::File {
                attempt: "find",
                path: "gantry itself".into(),
                source,
            })?;
            own.with_file_name("gantry-demo")
        }
    };
    if path.is_file() { Ok(path) } else { Err(DemoError::Program(path)) }
}

/// Builds the image, and gives its id.
pub(super) async fn build(args: &ServerArgs, program: &Path) -> Result<String, DemoError> {
    let context = Context::of(args, program)?;
    let store = ImageStore::open(&args.data_dir)?;
    let request =
        BuildRequest::new(&context.0, IMAGE.parse()?, SystemClock.now()).with_dockerfile(DOCKERFILE);
    let image = image::build::build(&store, request, &NoRun, &images::progress).await?;
    Ok(image.id.to_string())
}

/// Removes the image, if it is there.
pub(super) fn remove(args: &ServerArgs) -> Result<(), DemoError> {
    let store = ImageStore::open(&args.data_dir)?;
    if store.resolve(IMAGE).is_some() {
        store.remove(IMAGE)?;
        println!("image {IMAGE} removed");
    }
    Ok(())
}

/// A folder with the program alone in it, as long as it is needed.
struct Context(PathBuf);

impl Context {
    fn of(args: &ServerArgs, program: &Path) -> Result<Self, DemoError> {
        let folder = Self(args.run_dir.join(format!("demo-{}", std::process::id())));
        let fault = |attempt, path: &Path, source| DemoError::File { attempt, path: path.to_owned(), source };
        std::fs::create_dir_all(&folder.0).map_err(|e| fault("create the folder", &folder.0, e))?;
        let copy = folder.0.join("gantry-demo");
        std::fs::copy(program, copy).map_err(|e| fault("copy", program, e))?;
        Ok(folder)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

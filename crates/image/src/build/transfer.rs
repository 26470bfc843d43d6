//! COPY and ADD, from the instruction to the file system.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::copy::{Looks, archive_target, clean, copy, make_dirs, write_inline};
use super::error::StepError;
use super::ignore::Ignore;
use super::parse::{Inline, Transfer};
use super::source::{Source, SourceKind, find};
use super::stage::Stage;
use super::users::owner;
use super::workspace::Workspace;
use crate::compress::{Compression, decompress, peek, unsupported};
use crate::digest::Hasher;
use crate::fsutil::open_root;
use crate::image::Layer;
use crate::store::ImageStore;
use crate::unpack::{Limits, Target, unpack};

/// Where sources come from.
pub(super) enum Origin {
    Context {
        dir: PathBuf,
        ignore: Arc<Ignore>,
    },
    /// Another stage or image.
    Layers(Vec<Layer>),
}

/// An instruction with its variables replaced.
pub(super) struct Plan {
    origin: Origin,
    sources: Vec<String>,
    inline: Vec<Inline>,
    destination: String,
    chown: Option<String>,
    mode: Option<u32>,
    extract: bool,
}

/// A plan whose sources are found.
pub(super) struct Found {
    plan: Plan,
    sources: Vec<Source>,
    /// The mount that the sources are in, if there is one.
    _workspace: Option<Workspace>,
}

impl Plan {
    pub(super) fn new(
        stage: &Stage,
        transfer: &Transfer,
        origin: Origin,
        is_add: bool,
    ) -> Result<Self, StepError> {
        let sources = transfer.sources.iter().map(|s| stage.expand(s)).collect::<Result<Vec<_>, _>>()?;
        let is_remote = |source: &&String| {
            ["http://", "https://", "git@", "ftp://"].iter().any(|scheme| source.starts_with(scheme))
        };
        if let Some(remote) = sources.iter().find(is_remote).filter(|_| is_add) {
            let hint = "download it before the build, or in a RUN instruction";
            return Err(StepError::Unsupported(format!("ADD of the remote source {remote} ({hint})")));
        }
        let inline = transfer
            .inline
            .iter()
            .map(|inline| {
                let content = match inline.expand {
                    // Quotes are text in here; only variables are replaced.
                    true => expand_document(stage, &inline.content)?,
                    false => inline.content.clone(),
                };
                Ok(Inline { content, ..inline.clone() })
            })
            .collect::<Result<Vec<_>, StepError>>()?;
        let destination = stage.expand(&transfer.destination)?;
        let mode = match &transfer.chmod {
            None => None,
            Some(text) => {
                let text = stage.expand(text)?;
                let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777);
                Some(mode.ok_or(StepError::Invalid { what: "--chmod (expected octal digits)", value: text })?)
            }
        };
        Ok(Self {
            origin,
            sources,
            inline,
            destination: stage.settings.absolute(&destination),
            chown: transfer.chown.as_ref().map(|text| stage.expand(text)).transpose()?,
            mode,
            extract: is_add,
        })
    }

    pub(super) fn find(self, store: &ImageStore) -> Result<Found, StepError> {
        let none = Arc::default();
        let (root, ignore, workspace) = match &self.origin {
            Origin::Context { dir, ignore } => {
                (open_root(dir).map_err(StepError::io("open the build context", dir))?, ignore, None)
            }
            Origin::Layers(layers) => {
                let workspace = Workspace::new(store, layers)?;
                (workspace.root()?, &none, Some(workspace))
            }
        };
        let mut sources = Vec::new();
        for source in &self.sources {
            sources.extend(find(&root, source, ignore)?);
        }
        drop(root);
        Ok(Found { plan: self, sources, _workspace: workspace })
    }
}

impl Found {
    pub(super) fn hash(&self, hasher: &mut Hasher) -> Result<(), StepError> {
        let plan = &self.plan;
        let with_owner = matches!(plan.origin, Origin::Layers(_)) && plan.chown.is_none();
        hasher.field(format!("{} {:?} {:?} {}", plan.extract, plan.chown, plan.mode, with_owner).as_bytes());
        hasher.field(plan.destination.as_bytes());
        for inline in &plan.inline {
            hasher.field(inline.name.as_bytes());
            hasher.field(inline.content.as_bytes());
        }
        self.sources.iter().try_for_each(|source| source.hash(hasher, with_owner))
    }
}

/// Puts everything in its place below `root`.
pub(super) fn copy_step(root: &OwnedFd, found: &Found) -> Result<(), StepError> {
    let plan = &found.plan;
    let owner = match (&plan.chown, &plan.origin) {
        (Some(text), _) => Some(owner(root, text)?),
        // Who owns a file in a checkout means nothing; who owns it in an image does.
        (None, Origin::Context { .. }) => Some((0, 0)),
        (None, Origin::Layers(_)) => None,
    };
    let looks = Looks { owner, mode: plan.mode };
    let several = found.sources.len() + plan.inline.len() > 1;
    let mut plain = Vec::new();
    for source in &found.sources {
        match archive(source).filter(|_| plan.extract) {
            Some(archive) if plan.chown.is_none() && plan.mode.is_none() => {
                extract(root, archive?, &plan.destination)?;
            }
            Some(_) => return Err(StepError::Unsupported("ADD --chown or --chmod of an archive".into())),
            None => plain.push(source),
        }
    }
    copy(root, &plain, several, &plan.destination, looks)?;
    for inline in &plan.inline {
        write_inline(root, &inline.name, &inline.content, &plan.destination, several, looks)?;
    }
    Ok(())
}

/// WORKDIR.
pub(super) fn make_directory(root: &OwnedFd, path: &str) -> Result<(), StepError> {
    make_dirs(root, &clean(path), (0, 0)).map(drop)
}

/// The source as an archive, if it is one: a tar, compressed or not.
fn archive(source: &Source) -> Option<Result<File, StepError>> {
    let SourceKind::File { file, .. } = &source.kind else { return None };
    let failed = StepError::io::<std::io::Error>("read", PathBuf::from(&source.name));
    match looks_like_archive(file) {
        Ok(None) => None,
        Ok(Some(Ok(file))) => Some(Ok(file)),
        Ok(Some(Err(kind))) => Some(Err(StepError::Unsupported(format!("extracting {kind} archives")))),
        Err(e) => Some(Err(failed(e))),
    }
}

fn looks_like_archive(file: &OwnedFd) -> std::io::Result<Option<Result<File, &'static str>>> {
    let open = || {
        let mut file = File::from(file.try_clone()?);
        file.rewind()?;
        Ok::<_, std::io::Error>(file)
    };
    let first = peek(&mut BufReader::new(open()?))?;
    if let Some(kind) = unsupported(&first) {
        return Ok(Some(Err(kind)));
    }
    // A compressed file that holds no tar is copied like any other.
    let mut header = Vec::new();
    let (compression, stream) = decompress(open()?)?;
    let read = stream.take(512).read_to_end(&mut header);
    if read.is_err() && compression != Compression::None {
        return Ok(None);
    }
    read?;
    let is_tar = header.len() == 512 && header[257..262] == *b"ustar";
    Ok(if is_tar { Some(Ok(open()?)) } else { None })
}

fn extract(root: &OwnedFd, archive: File, destination: &str) -> Result<(), StepError> {
    let below = archive_target(root, destination)?;
    let (_, stream) = decompress(archive).map_err(StepError::io("read", destination))?;
    let root = root.try_clone().map_err(StepError::io("open", "/"))?;
    Ok(unpack(root, Target::Files { below }, stream, Limits::default())?)
}

/// Variables in a here-document; quotes stand for themselves.
fn expand_document(stage: &Stage, text: &str) -> Result<String, StepError> {
    let mut protected = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\'' | '"') {
            protected.push('\\');
        }
        protected.push(c);
    }
    Ok(super::words::expand(&protected, '\\', &|name| stage.lookup(name))?)
}

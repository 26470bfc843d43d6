use oci_spec::image::{Arch, Descriptor, ImageIndex, Os};

/// The machine that an image is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The operating system, as Go names it.
    pub os: Os,
    /// The processor, as Go names it.
    pub architecture: Arch,
    /// What further distinguishes the processor (`v7`, `v8`); any if not given.
    pub variant: Option<String>,
}

impl Default for Platform {
    /// This machine.
    fn default() -> Self {
        Self { os: Os::Linux, architecture: Arch::default(), variant: None }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    /// The manifest of `index` for this platform, or those that it has instead.
    pub(crate) fn choose<'a>(&self, index: &'a ImageIndex) -> Result<&'a Descriptor, Vec<String>> {
        let matching = |descriptor: &&Descriptor| {
            descriptor.platform().as_ref().is_some_and(|platform| {
                *platform.os() == self.os
                    && *platform.architecture() == self.architecture
                    && self
                        .variant
                        .as_ref()
                        .is_none_or(|variant| platform.variant().as_ref() == Some(variant))
            })
        };
        if let Some(found) = index.manifests().iter().find(matching) {
            return Ok(found);
        }
        // Single-platform tools leave the platform out.
        match index.manifests().as_slice() {
            [only] if only.platform().is_none() => Ok(only),
            others => Err(others
                .iter()
                .filter_map(|descriptor| descriptor.platform().as_ref())
                .filter(|platform| platform.os().to_string() != "unknown")
                .map(|p| match p.variant() {
                    Some(variant) => format!("{}/{}/{variant}", p.os(), p.architecture()),
                    None => format!("{}/{}", p.os(), p.architecture()),
                })
                .collect()),
        }
    }
}

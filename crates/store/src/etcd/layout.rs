//! Keys: `<prefix><table>/<key>`, as upstream's `/registry/pods/default/web`.

/// Turns keys of tables into keys of etcd and back.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    prefix: String,
}

impl Layout {
    pub(crate) fn new(prefix: &str) -> Self {
        let slash = if prefix.ends_with('/') { "" } else { "/" };
        Self { prefix: format!("{prefix}{slash}") }
    }

    pub(crate) fn key(&self, table: &str, key: &str) -> Vec<u8> {
        format!("{}{table}/{key}", self.prefix).into_bytes()
    }

    /// The table and the key in it; nothing for what is no record, as the tick.
    pub(crate) fn parse<'a>(&self, key: &'a [u8]) -> Option<(&'a str, &'a str)> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        std::str::from_utf8(rest).ok()?.split_once('/')
    }

    /// All keys: from the first, up to the second.
    pub(crate) fn range(&self) -> (Vec<u8>, Vec<u8>) {
        let begin = self.prefix.as_bytes().to_vec();
        let mut end = begin.clone();
        // It ends with a slash, so there is a last byte and it can be raised.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        (begin, end)
    }

    /// A key that is written only to make the watch speak. It has no table.
    pub(crate) fn tick(&self) -> Vec<u8> {
        format!("{}tick", self.prefix).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back() {
        let layout = Layout::new("/registry");
        assert_eq!(layout.key("pods", "default/web"), b"/registry/pods/default/web");
        assert_eq!(layout.parse(b"/registry/pods/default/web"), Some(("pods", "default/web")));
        assert_eq!(layout.parse(b"/registry/nodes/a"), Some(("nodes", "a")));
        assert_eq!(layout.parse(&layout.tick()), None);
        assert_eq!(layout.parse(b"/other/nodes/a"), None);
        let (begin, end) = layout.range();
        assert_eq!((&*begin, &*end), (&b"/registry/"[..], &b"/registry0"[..]));
        assert!(layout.tick() > begin && layout.tick() < end);
    }
}

//! What the program says of itself, in three forms.

use std::fmt::Write;

/// Who answers.
#[derive(Clone, Debug)]
pub struct Identity {
    pub pod: String,
    pub node: String,
    pub namespace: String,
    pub version: &'static str,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Html,
    Json,
    Text,
}

impl Form {
    /// The form that a client takes: browsers ask for HTML, programs for JSON, and people's `curl` for anything.
    pub fn wanted(accept: &str) -> Self {
        let at = |media: &str| accept.find(media);
        match (at("application/json"), at("text/html")) {
            (Some(json), Some(html)) if json < html => Self::Json,
            (Some(_), None) => Self::Json,
            (_, Some(_)) => Self::Html,
            (None, None) => Self::Text,
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}

impl Identity {
    /// Outside a cluster the names are those of the machine, or missing.
    pub fn from_environment() -> Self {
        let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let host = || nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned());
        let unknown = || "unknown".to_owned();
        Self {
            pod: named("POD_NAME").or_else(host).unwrap_or_else(unknown),
            node: named("NODE_NAME").unwrap_or_else(unknown),
            namespace: named("POD_NAMESPACE").unwrap_or_else(unknown),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// The answer to the `count`th request.
    pub fn render(&self, form: Form, count: u64) -> String {
        match form {
            Form::Html => self.html(count),
            Form::Json => self.json(count),
            Form::Text => self.text(count),
        }
    }

    fn rows(&self, count: u64) -> [(&'static str, String); 5] {
        [
            ("pod", self.pod.clone()),
            ("node", self.node.clone()),
            ("namespace", self.namespace.clone()),
            ("version", self.version.to_owned()),
            ("requests", count.to_string()),
        ]
    }

    fn text(&self, count: u64) -> String {
        let mut text = format!("Hello from {}!\n\n", self.pod);
        for (name, value) in self.rows(count) {
            let _ = writeln!(text, "  {name:<10} {value}");
        }
        text
    }

    fn json(&self, count: u64) -> String {
        format!(
            "{{\"pod\":{},\"node\":{},\"namespace\":{},\"version\":{},\"requests\":{count}}}\n",
            quoted(&self.pod),
            quoted(&self.node),
            quoted(&self.namespace),
            quoted(self.version),
        )
    }

    fn html(&self, count: u64) -> String {
        let mut rows = String::new();
        for (name, value) in self.rows(count) {
            let _ = write!(rows, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
        }
        let title = escaped(&self.pod);
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>{STYLE}</head><body><main><h1>Hello from {title}</h1><dl>{rows}</dl><p>Load the page again: another pod may answer.</p></main></body></html>\n"
        )
    }
}

const STYLE: &str = "<meta name=\"viewport\" content=\"width=device-width\"><style>\
:root{color-scheme:light dark}\
body{font:1rem/1.6 system-ui,sans-serif;display:grid;place-items:center;min-height:90vh;margin:0}\
main{max-width:36rem;padding:1rem 2rem;border-left:.4rem solid #2a9d8f}\
h1{font-size:1.5rem;overflow-wrap:anywhere}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.5rem}\
dt{opacity:.7}dd{margin:0;font-family:ui-monospace,monospace;overflow-wrap:anywhere}\
p{opacity:.7}</style>";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd() -> Identity {
        Identity { pod: "<a&\"b\\\n".into(), node: "n".into(), namespace: "s".into(), version: "1" }
    }

    #[test]
    fn the_form_follows_the_client() {
        for (accept, form) in [
            ("*/*", Form::Text),
            ("", Form::Text),
            ("application/json", Form::Json),
            ("application/json, text/html", Form::Json),
            ("text/html,application/xhtml+xml,application/json;q=0.9,*/*", Form::Html),
        ] {
            assert_eq!(Form::wanted(accept), form, "{accept}");
        }
    }

    #[test]
    fn names_cannot_break_out() {
        let json = odd().render(Form::Json, 7);
        assert_eq!(
            json,
            "{\"pod\":\"<a&\\\"b\\\\\\u000a\",\"node\":\"n\",\"namespace\":\"s\",\"version\":\"1\",\"requests\":7}\n"
        );
        let html = odd().render(Form::Html, 7);
        assert!(html.contains("&lt;a&amp;&quot;b") && !html.contains("<a&"), "{html}");
        assert!(odd().render(Form::Text, 7).contains("  requests   7\n"));
    }
}

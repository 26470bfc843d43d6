use std::fmt::Write;

use base::Timestamp;

/// Numbers in the form that Prometheus reads.
#[derive(Default)]
pub(super) struct Text {
    out: String,
    name: &'static str,
}

impl Text {
    /// Begins a family of numbers.
    pub(super) fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One number of the family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.put("", labels, value, None);
    }

    /// One number that was so at a time.
    pub(super) fn sample_at(&mut self, labels: &[(&str, &str)], value: f64, at: Timestamp) {
        self.put("", labels, value, Some(at));
    }

    /// One number of the family whose name has an ending.
    pub(super) fn part(&mut self, ending: &str, labels: &[(&str, &str)], value: f64) {
        self.put(ending, labels, value, None);
    }

    fn put(&mut self, ending: &str, labels: &[(&str, &str)], value: f64, at: Option<Timestamp>) {
        self.out.push_str(self.name);
        self.out.push_str(ending);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.out.push(if index == 0 { '{' } else { ',' });
            self.out.push_str(name);
            self.out.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = write!(self.out, " {value}");
        if let Some(at) = at {
            let _ = write!(self.out, " {}", at.as_millisecond());
        }
        self.out.push('\n');
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted() {
        let mut text = Text::default();
        text.family("a", "gauge", "About a.");
        text.sample(&[("x", "1"), ("y", "\"\\\n")], 1.5);
        text.sample_at(&[], 2e9, Timestamp::from_second(3).unwrap());
        text.part("_sum", &[], 0.0);
        let want = "# HELP a About a.\n# TYPE a gauge\na{x=\"1\",y=\"\\\"\\\\\\n\"} 1.5\na 2000000000 3000\na_sum 0\n";
        assert_eq!(text.finish(), want);
    }
}

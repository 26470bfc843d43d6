use base::Timestamp;
use types::Status;

/// What of a log is wanted (kubernetes/kubernetes, `pkg/apis/core/types.go`, `PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogOptions {
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) timestamps: bool,
    /// Lines before it are left out.
    pub(super) since: Option<Timestamp>,
    /// Only so many of the last lines.
    pub(super) tail: Option<u64>,
    /// Not more bytes than that.
    pub(super) limit: Option<u64>,
    /// `stdout` or `stderr`; both if absent.
    pub(super) stream: Option<&'static str>,
}

impl LogOptions {
    pub(super) fn parse(query: &[(String, String)], now: Timestamp) -> Result<Self, Status> {
        let mut options = Self::default();
        let wrong = |name: &str, value: &str| {
            Status::bad_request(format!("invalid value {value:?} for {name:?} of a log"))
        };
        for (name, value) in query {
            let number = |least: u64| {
                let number = value.parse::<u64>().ok().filter(|number| *number >= least);
                number.ok_or_else(|| wrong(name, value))
            };
            match name.as_str() {
                "follow" => options.follow = streaming::truth(value),
                "previous" => options.previous = streaming::truth(value),
                "timestamps" => options.timestamps = streaming::truth(value),
                "tailLines" => options.tail = Some(number(0)?),
                "limitBytes" => options.limit = Some(number(1)?),
                "sinceSeconds" => {
                    let ago = i64::try_from(number(1)?).map_err(|_| wrong(name, value))?;
                    let start = now.as_second().checked_sub(ago).and_then(|s| Timestamp::from_second(s).ok());
                    options.since = Some(start.unwrap_or(Timestamp::MIN));
                }
                "sinceTime" => options.since = Some(value.parse().map_err(|_| wrong(name, value))?),
                "stream" => {
                    options.stream = match value.as_str() {
                        "All" | "" => None,
                        "Stdout" => Some("stdout"),
                        "Stderr" => Some("stderr"),
                        _ => return Err(wrong(name, value)),
                    }
                }
                _ => {}
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_wrong() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let parse = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            LogOptions::parse(&pairs, now)
        };
        let options = parse(&[("follow", "true"), ("sinceSeconds", "60"), ("tailLines", "0")]).unwrap();
        assert_eq!(options.since.unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!((options.follow, options.tail), (true, Some(0)));
        for wrong in [("tailLines", "-1"), ("limitBytes", "0"), ("sinceTime", "noon"), ("stream", "both")] {
            let status = parse(&[wrong]).unwrap_err();
            assert!(status.message.contains(wrong.0), "{status:?}");
        }
    }
}

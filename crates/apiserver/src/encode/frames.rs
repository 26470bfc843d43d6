use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use registry::ResourceDef;
use store::Record;
use types::Status;

use super::{Form, Media};

/// What the latest events were encoded to, for the many watchers that want the same (upstream:
/// `cachingObject` in `apiserver/pkg/storage/cacher`). Whoever comes late encodes for itself again.
#[derive(Default)]
pub(crate) struct Frames(Mutex<Held>);

/// How many bytes are kept at most. Only protobuf, other versions than the stored one and metadata alone are encoded;
/// where nobody watches in these ways, nothing is kept.
const MOST: usize = 2 << 20;
/// What a frame takes besides its bytes.
const OVERHEAD: usize = 256;

#[derive(Default)]
struct Held {
    kept: HashMap<Key, Kept>,
    /// Oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

/// The places of the record and of the definition in memory, and what is made of them.
type Key = (usize, usize, bool, Media);

struct Kept {
    frame: Frame,
    bytes: usize,
    /// As long as these are held, nothing else can be in their places.
    _of: (Weak<Record>, Weak<ResourceDef>),
}

type Frame = Arc<OnceLock<Result<Bytes, Status>>>;

impl Frames {
    /// The frame of a record, which `encode` makes if it is not there. The form is no table: these tell ages.
    pub(crate) fn get(
        &self,
        record: &Arc<Record>,
        def: &Arc<ResourceDef>,
        (form, media): (&Form, Media),
        encode: impl FnOnce() -> Result<Bytes, Status>,
    ) -> Result<Bytes, Status> {
        let key = (Arc::as_ptr(record).addr(), Arc::as_ptr(def).addr(), *form == Form::Partial, media);
        let frame = self.0.lock().frame(key, record, def);
        let mut made = None;
        // Whoever wants it at the same time waits for the one who makes it.
        let answer = frame.get_or_init(|| {
            let answer = encode();
            made = Some(answer.as_ref().map_or(0, Bytes::len));
            answer
        });
        if let Some(bytes) = made {
            self.0.lock().grow(&key, &frame, bytes);
        }
        answer.clone()
    }
}

impl Held {
    fn frame(&mut self, key: Key, record: &Arc<Record>, def: &Arc<ResourceDef>) -> Frame {
        let kept = self.kept.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            self.bytes += OVERHEAD;
            let of = (Arc::downgrade(record), Arc::downgrade(def));
            Kept { frame: Frame::default(), bytes: OVERHEAD, _of: of }
        });
        Arc::clone(&kept.frame)
    }

    fn grow(&mut self, key: &Key, frame: &Frame, bytes: usize) {
        // It may have been given up in the meantime.
        let kept = self.kept.get_mut(key).filter(|kept| Arc::ptr_eq(&kept.frame, frame));
        let Some(kept) = kept else { return };
        kept.bytes += bytes;
        self.bytes += bytes;
        while self.bytes > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.kept.remove(&oldest).map_or(0, |kept| kept.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Arc<Record> {
        Arc::new(Record::unstored(name.into(), Bytes::new(), store::Terms::default()))
    }

    #[test]
    fn a_frame_is_made_once_for_each_form_and_given_up_in_the_end() {
        let def = Arc::new(ResourceDef::elsewhere("", "v1", "pods", true));
        let (frames, made) = (Frames::default(), std::cell::Cell::new(0));
        let get = |record: &Arc<Record>, form: Form, size: usize| {
            let encode = || {
                made.set(made.get() + 1);
                Ok(vec![b'x'; size].into())
            };
            frames.get(record, &def, (&form, Media::Protobuf), encode).map(|bytes| bytes.len())
        };
        let one = record("a");
        assert_eq!((get(&one, Form::Object, 5), get(&one, Form::Object, 5)), (Ok(5), Ok(5)));
        assert_eq!((get(&one, Form::Partial, 3), made.get()), (Ok(3), 2));
        for _ in 0..1000 {
            // The last one is gone when the next one comes, and may have its place.
            assert_eq!(get(&record("b"), Form::Object, 9_000), Ok(9_000));
        }
        assert_eq!(made.get(), 1002, "another record's frame was given");
        let held = frames.0.lock();
        assert_eq!(held.bytes, held.kept.values().map(|kept| kept.bytes).sum::<usize>());
        assert!(held.bytes <= MOST && held.order.len() == held.kept.len() && held.kept.len() > 200);
        drop(held);
        assert_eq!((get(&one, Form::Object, 5), made.get()), (Ok(5), 1003));
    }

    #[test]
    fn a_failure_is_the_same_for_all() {
        let def = Arc::new(ResourceDef::elsewhere("", "v1", "pods", true));
        let (frames, one) = (Frames::default(), record("a"));
        let fail = || Err(Status::bad_request("no"));
        for _ in 0..2 {
            let got = frames.get(&one, &def, (&Form::Object, Media::Protobuf), fail);
            assert_eq!(got.unwrap_err().message, "no");
        }
    }
}

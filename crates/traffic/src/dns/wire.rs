//! The little of the wire format that forwarding needs: where a message's question ends, and where its records keep
//! their times to live. Never panics, whatever the bytes.

/// Length of the header.
pub(super) const HEADER: usize = 12;
const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]))
}

fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16_at(message, at)?) << 16 | u32::from(u16_at(message, at + 2)?))
}

/// Where the name at `at` ends. A pointer ends it.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            0xc0.. => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

/// Whether it is a response.
pub(super) fn is_response(message: &[u8]) -> bool {
    message.get(2).is_some_and(|b| b & 0x80 != 0)
}

/// Whether it says that it was cut.
pub(super) fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|b| b & 0x02 != 0)
}

/// The response code in the header.
pub(super) fn code(message: &[u8]) -> u8 {
    message.get(3).map_or(2, |b| b & 0x0f)
}

/// The question section, of messages with exactly one question.
pub(super) fn question(message: &[u8]) -> Option<&[u8]> {
    if u16_at(message, 4)? != 1 {
        return None;
    }
    message.get(HEADER..skip_name(message, HEADER)? + 4)
}

/// Whether `reply` answers `request`: same id, same question, a response.
pub(super) fn answers(reply: &[u8], request: &[u8]) -> bool {
    let same_question = match (question(reply), question(request)) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
        _ => false,
    };
    reply.get(..2) == request.get(..2) && is_response(reply) && same_question
}

/// Header and question of a message, marked as cut.
pub(super) fn cut(message: &[u8]) -> Option<Vec<u8>> {
    let question = question(message)?;
    let mut short = message.get(..HEADER)?.to_vec();
    short[2] |= 0x02;
    short[6..HEADER].fill(0);
    short.extend_from_slice(question);
    Some(short)
}

/// The times to live in a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ttls {
    /// Where they are.
    pub(super) at: Vec<u16>,
    /// The shortest: how long the message may be kept. A negative answer's SOA record limits it too.
    pub(super) least: Option<u32>,
}

/// Finds the times to live; none if the message is not whole.
pub(super) fn ttls(message: &[u8]) -> Option<Ttls> {
    let mut at = HEADER;
    for _ in 0..u16_at(message, 4)? {
        at = skip_name(message, at)? + 4;
    }
    let records = (6..HEADER).step_by(2).map(|n| u16_at(message, n).map(u32::from)).sum::<Option<u32>>()?;
    let mut found = Ttls::default();
    for _ in 0..records {
        at = skip_name(message, at)?;
        let kind = u16_at(message, at)?;
        let ttl = u32_at(message, at + 4)?;
        let end = at + 10 + usize::from(u16_at(message, at + 8)?);
        if end > message.len() {
            return None;
        }
        if kind != TYPE_OPT {
            found.at.push(u16::try_from(at + 4).ok()?);
            // RFC 2308: the last field of SOA is the time to live of a negative answer.
            let minimum = if kind == TYPE_SOA { u32_at(message, end.checked_sub(4)?)? } else { u32::MAX };
            found.least = Some(found.least.unwrap_or(u32::MAX).min(ttl).min(minimum));
        }
        at = end;
    }
    Some(found)
}

/// Takes `age` seconds off every time to live.
pub(super) fn age(message: &mut [u8], ttls: &Ttls, age: u32) {
    for at in &ttls.at {
        let at = usize::from(*at);
        if let (Some(ttl), Some(bytes)) = (u32_at(message, at), message.get_mut(at..at + 4)) {
            bytes.copy_from_slice(&ttl.saturating_sub(age).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), other in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (question(&bytes), cut(&bytes), code(&bytes), answers(&bytes, &other), is_truncated(&bytes));
            if let Some(found) = ttls(&bytes) {
                age(&mut bytes, &found, 7);
                prop_assert!(found.at.iter().all(|at| usize::from(*at) + 4 <= bytes.len()));
            }
        }

        #[test]
        fn nor_do_almost_whole_messages(
            counts in prop::array::uniform4(0u8..4),
            rest in prop::collection::vec(prop_oneof![Just(0u8), Just(0xc0), 1u8..5, any::<u8>()], 0..200),
        ) {
            let mut bytes = vec![1, 2, 0x81, 0x80];
            counts.iter().for_each(|c| bytes.extend([0, *c]));
            bytes.extend(rest);
            let _ = (question(&bytes), cut(&bytes));
            if let Some(found) = ttls(&bytes) {
                age(&mut bytes, &found, 7);
            }
        }
    }
}

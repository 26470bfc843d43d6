//! Whether the images are there already (`imagelocality/image_locality.go`).

use crate::place::Ask;

use super::FULL;

const MB: i64 = 1024 * 1024;
/// Less is nothing.
const LEAST: i64 = 23 * MB;
/// More makes no difference, for each container.
const MOST: i64 = 1000 * MB;

pub(super) fn add(ask: &Ask<'_>, fitting: &[usize], total: &mut [i64], weight: i64) {
    let (view, images) = (ask.view, &ask.pod.wants().images);
    let known: Vec<_> = images.iter().filter_map(|name| view.images.get(name)).collect();
    if known.is_empty() {
        return;
    }
    let mut there = vec![0; view.len()];
    for image in known {
        // What is everywhere counts for most: pods do not crowd on the first node that has it.
        let spread = image.rows.len() as f64 / view.len() as f64;
        let size = (image.size as f64 * spread) as i64;
        image.rows.iter().for_each(|row| there[*row] += size);
    }
    let most = MOST * images.len() as i64;
    super::add(total, weight, |place| {
        FULL * (there[fitting[place]].clamp(LEAST, most) - LEAST) / (most - LEAST)
    });
}

//! What a node's status says of its images, by which the scheduler prefers nodes that have them (kubernetes/kubernetes,
//! `pkg/kubelet/nodestatus/setters.go`, `Images`).

use image::Image;
use serde_json::{Value, json};

use crate::engine::Engine;

/// How many names of each (`MaxNamesPerImageInNodeStatus`).
const MOST_NAMES: usize = 5;

/// The images of a node that are worth telling of, at most so many; none if they cannot be listed just now.
pub(crate) async fn of(engine: &Engine, most: Option<usize>) -> Option<Value> {
    let images = match engine {
        Engine::BuiltIn(own) => {
            let store = own.images.clone();
            tokio::task::spawn_blocking(move || store.list()).await.ok()?
        }
        Engine::Cri(cri) => cri.list_images().await.ok()?,
    };
    Some(tell(images, most))
}

/// The largest first: it is those that matter.
fn tell(mut images: Vec<Image>, most: Option<usize>) -> Value {
    images.retain(|image| !image.names.is_empty() || !image.digests.is_empty());
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let one = |image: &Image| {
        let names: Vec<&String> = image.digests.iter().chain(&image.names).take(MOST_NAMES).collect();
        json!({"names": names, "sizeBytes": image.size})
    };
    images.iter().take(most.unwrap_or(usize::MAX)).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_told_of() {
        let image = |n: u64, names: usize| {
            let id = format!("sha256:{n:064x}").parse().unwrap();
            let names = (0..names).map(|i| format!("r/i{n}:{i}")).collect();
            Image::elsewhere(id, names, vec![format!("r/i{n}@sha256:{n:064x}")], n * 10, None)
        };
        let mut nameless = image(9, 0);
        nameless.digests.clear();
        let told = tell(vec![image(1, 1), nameless, image(3, 9), image(2, 0)], Some(50));
        let sizes: Vec<u64> =
            told.as_array().unwrap().iter().map(|i| i["sizeBytes"].as_u64().unwrap()).collect();
        assert_eq!(sizes, [30, 20, 10]);
        assert_eq!(told[0]["names"].as_array().unwrap().len(), MOST_NAMES);
        assert_eq!(told[2]["names"], json!([format!("r/i1@sha256:{:064x}", 1), "r/i1:0"]));
        let many: Vec<Image> = (0..60).map(|n| image(n, 1)).collect();
        let told = |most| tell(many.clone(), most).as_array().unwrap().len();
        assert_eq!((told(Some(50)), told(Some(0)), told(None)), (50, 0, 60));
    }
}

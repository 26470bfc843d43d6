use std::collections::HashMap;

use k8s_openapi::api::core::v1::ContainerImage;

/// Which nodes have which images.
#[derive(Debug, Default)]
pub(crate) struct Images {
    known: HashMap<String, Image>,
    /// The names on each node.
    on: Vec<Vec<String>>,
}

#[derive(Debug)]
pub(crate) struct Image {
    /// As the first node told that had it.
    pub(crate) size: i64,
    pub(crate) rows: Vec<usize>,
}

impl Images {
    pub(crate) fn get(&self, name: &str) -> Option<&Image> {
        self.known.get(name)
    }

    pub(crate) fn push(&mut self) {
        self.on.push(Vec::new());
    }

    pub(crate) fn set(&mut self, row: usize, images: &[ContainerImage]) {
        let names = || images.iter().flat_map(|i| i.names.iter().flatten());
        if names().eq(&self.on[row]) {
            return;
        }
        self.clear(row);
        for image in images {
            for name in image.names.iter().flatten() {
                let size = image.size_bytes.unwrap_or_default();
                let image = self.known.entry(name.clone()).or_insert(Image { size, rows: Vec::new() });
                if !image.rows.contains(&row) {
                    image.rows.push(row);
                }
            }
        }
        self.on[row] = names().cloned().collect();
    }

    fn clear(&mut self, row: usize) {
        for name in std::mem::take(&mut self.on[row]) {
            if let Some(image) = self.known.get_mut(&name) {
                image.rows.retain(|r| *r != row);
                if image.rows.is_empty() {
                    self.known.remove(&name);
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, row: usize) {
        self.clear(row);
        self.on.swap_remove(row);
        let last = self.on.len();
        for name in self.on.get(row).into_iter().flatten() {
            if let Some(image) = self.known.get_mut(name) {
                image.rows.iter_mut().filter(|r| **r == last).for_each(|r| *r = row);
            }
        }
    }
}

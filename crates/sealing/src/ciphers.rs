//! The ciphers, in upstream's forms (kubernetes/kubernetes, `apiserver/pkg/storage/value/encrypt`).

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use aes::{Aes128, Aes192, Aes256};
use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Key, Nonce, XSalsa20Poly1305};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use ring::rand::{SecureRandom, SystemRandom};

/// A value that a key does not fit, or that was changed.
pub(crate) const WRONG: &str = "it was changed, or sealed with another key, or for another object";
const NO_RANDOM: &str = "the system gives no random bytes";

fn random<const N: usize>() -> Result<[u8; N], &'static str> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NO_RANDOM)?;
    Ok(bytes)
}

/// A fresh seed for [`Seeded`].
pub(crate) fn seed() -> Result<[u8; 32], &'static str> {
    random()
}

/// AES-GCM: `nonce (12) | ciphertext and tag`, bound to the object's place.
pub(crate) struct Gcm(LessSafeKey);

impl Gcm {
    /// Keys of 24 bytes, which upstream takes too, are not to be had.
    pub(crate) fn new(secret: &[u8]) -> Option<Self> {
        let algorithm = if secret.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        UnboundKey::new(algorithm, secret).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, &'static str> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut out = nonce.to_vec();
        let mut sealed = plain.to_vec();
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_append_tag(nonce, Aad::from(place), &mut sealed)
            .map_err(|_| "it is too long")?;
        out.append(&mut sealed);
        Ok(out)
    }

    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(WRONG)?;
        let mut sealed = sealed.to_vec();
        let nonce = ring::aead::Nonce::assume_unique_for_key(*nonce);
        let length = self.0.open_in_place(nonce, Aad::from(place), &mut sealed).map_err(|_| WRONG)?.len();
        sealed.truncate(length);
        Ok(sealed)
    }
}

/// AES-GCM with a key of its own for each value, derived from a seed (`aes_extended_nonce.go`):
/// `info (32) | nonce (12) | ciphertext and tag`.
pub(crate) struct Seeded(Vec<u8>);

struct Thirty2;

impl KeyType for Thirty2 {
    fn len(&self) -> usize {
        32
    }
}

impl Seeded {
    pub(crate) fn new(seed: Vec<u8>) -> Option<Self> {
        (seed.len() >= 32).then_some(Self(seed))
    }

    fn key(&self, info: &[u8; 32]) -> Result<Gcm, &'static str> {
        let mut key = [0; 32];
        let info = [&info[..]];
        let seed = Prk::new_less_safe(HKDF_SHA256, &self.0);
        seed.expand(&info, Thirty2).and_then(|out| out.fill(&mut key)).map_err(|_| WRONG)?;
        Gcm::new(&key).ok_or(WRONG)
    }

    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, &'static str> {
        let info: [u8; 32] = random()?;
        Ok([&info[..], &self.key(&info)?.seal(place, plain)?].concat())
    }

    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (info, sealed) = sealed.split_first_chunk::<32>().ok_or(WRONG)?;
        self.key(info)?.open(place, sealed)
    }
}

/// AES-CBC with PKCS #7 padding: `iv (16) | ciphertext`. Nothing tells whether it was changed.
pub(crate) struct Cbc(Vec<u8>);

impl Cbc {
    pub(crate) fn new(secret: &[u8]) -> Option<Self> {
        matches!(secret.len(), 16 | 24 | 32).then(|| Self(secret.to_vec()))
    }

    pub(crate) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, &'static str> {
        let iv: [u8; 16] = random()?;
        let key = &self.0[..];
        let sealed = match key.len() {
            16 => cbc::Encryptor::<Aes128>::new_from_slices(key, &iv)
                .map(|c| c.encrypt_padded_vec_mut::<Pkcs7>(plain)),
            24 => cbc::Encryptor::<Aes192>::new_from_slices(key, &iv)
                .map(|c| c.encrypt_padded_vec_mut::<Pkcs7>(plain)),
            _ => cbc::Encryptor::<Aes256>::new_from_slices(key, &iv)
                .map(|c| c.encrypt_padded_vec_mut::<Pkcs7>(plain)),
        };
        Ok([&iv[..], &sealed.map_err(|_| WRONG)?].concat())
    }

    pub(crate) fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (iv, sealed) = sealed.split_first_chunk::<16>().ok_or(WRONG)?;
        let key = &self.0[..];
        let opened = match key.len() {
            16 => cbc::Decryptor::<Aes128>::new_from_slices(key, iv)
                .map(|c| c.decrypt_padded_vec_mut::<Pkcs7>(sealed)),
            24 => cbc::Decryptor::<Aes192>::new_from_slices(key, iv)
                .map(|c| c.decrypt_padded_vec_mut::<Pkcs7>(sealed)),
            _ => cbc::Decryptor::<Aes256>::new_from_slices(key, iv)
                .map(|c| c.decrypt_padded_vec_mut::<Pkcs7>(sealed)),
        };
        opened.map_err(|_| WRONG)?.map_err(|_| WRONG)
    }
}

/// NaCl's secret box: `nonce (24) | tag and ciphertext`.
pub(crate) struct SecretBox(XSalsa20Poly1305);

impl SecretBox {
    pub(crate) fn new(secret: &[u8]) -> Option<Self> {
        let key: [u8; 32] = secret.try_into().ok()?;
        Some(Self(XSalsa20Poly1305::new(&Key::from(key))))
    }

    pub(crate) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, &'static str> {
        let nonce: [u8; 24] = random()?;
        let sealed = self.0.encrypt(&Nonce::from(nonce), plain).map_err(|_| "it is too long")?;
        Ok([&nonce[..], &sealed].concat())
    }

    pub(crate) fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (nonce, sealed) = sealed.split_first_chunk::<24>().ok_or(WRONG)?;
        self.0.decrypt(&Nonce::from(*nonce), sealed).map_err(|_| WRONG)
    }
}

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::digest::{SHA256, digest};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::TokenError;

/// A key that tokens are checked with.
pub(crate) struct VerifyKey {
    pub(super) id: String,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    /// As the set of keys shows it.
    pub(super) jwk: Value,
}

fn bad(why: &str) -> TokenError {
    TokenError::KeyFile(why.to_owned())
}

impl VerifyKey {
    /// Every public key of a PEM file.
    pub(super) fn read_all(pem: &str) -> Result<Vec<Self>, TokenError> {
        let mut keys = Vec::new();
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(pem.as_bytes()) {
            let der = der.map_err(|e| TokenError::KeyFile(e.to_string()))?;
            keys.push(Self::read(&der)?);
        }
        if keys.is_empty() { Err(bad("there is no public key in it")) } else { Ok(keys) }
    }

    fn read(der: &[u8]) -> Result<Self, TokenError> {
        // As upstream names keys (`pkg/serviceaccount/jwt.go`, `keyIDFromPublicKey`).
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, der));
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| bad("it is no public key"))?;
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let key = info.parsed().map_err(|_| bad("its kind of key is unknown"))?;
        let (algorithm, decoding, mut jwk) = match key {
            PublicKey::RSA(rsa) => {
                let strip = |b: &[u8]| b.iter().copied().skip_while(|b| *b == 0).collect::<Vec<u8>>();
                let (n, e) = (encode(&strip(rsa.modulus)), encode(&strip(rsa.exponent)));
                let decoding = DecodingKey::from_rsa_components(&n, &e).map_err(TokenError::Key)?;
                (Algorithm::RS256, decoding, json!({"kty": "RSA", "alg": "RS256", "n": n, "e": e}))
            }
            PublicKey::EC(point) => {
                let data = point.data();
                let (curve, algorithm, name) = match data.len() {
                    65 => ("P-256", Algorithm::ES256, "ES256"),
                    97 => ("P-384", Algorithm::ES384, "ES384"),
                    _ => return Err(bad("only the curves P-256 and P-384 are known")),
                };
                let (x, y) = data[1..].split_at((data.len() - 1) / 2);
                let (x, y) = (encode(x), encode(y));
                let decoding = DecodingKey::from_ec_components(&x, &y).map_err(TokenError::Key)?;
                (algorithm, decoding, json!({"kty": "EC", "alg": name, "crv": curve, "x": x, "y": y}))
            }
            _ => return Err(bad("only RSA and elliptic curve keys are known")),
        };
        jwk["kid"] = id.as_str().into();
        jwk["use"] = "sig".into();
        Ok(Self { id, algorithm, decoding, jwk })
    }
}

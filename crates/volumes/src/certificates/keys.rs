//! Keys of pods, and the requests that show that we have them (`pkg/kubelet/podcertificate`, `generateKeyAndRequest`).

use p521::ecdsa::signature::Signer;
use p521::ecdsa::{Signature, SigningKey};
use p521::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::rand_core::OsRng;

use crate::error::Fault;

/// A new private key of the type that a projection names, as PKCS#8 in PEM, and a PKCS#10 request in DER that asks for
/// nothing but shows that we have the key. Blocks: an RSA key takes seconds.
pub(super) fn make(kind: &str) -> Result<(String, Vec<u8>), Fault> {
    let made = match kind {
        "ECDSAP256" => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).and_then(request),
        "ECDSAP384" => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).and_then(request),
        "ED25519" => rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).and_then(request),
        "ECDSAP521" => return p521(),
        "RSA3072" => return rsa(3072),
        "RSA4096" => return rsa(4096),
        other => {
            let what = "key type of a podCertificate";
            return Err(Fault::Unsupported { what, text: other.to_owned() });
        }
    };
    made.map_err(fault)
}

fn fault(error: impl std::fmt::Display) -> Fault {
    Fault::Certificate(format!("cannot make a key: {error}"))
}

fn request(key: rcgen::KeyPair) -> Result<(String, Vec<u8>), rcgen::Error> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params.serialize_request(&key)?.der().to_vec();
    Ok((key.serialize_pem(), request))
}

/// `ring` signs with such keys, but makes none.
fn rsa(bits: usize) -> Result<(String, Vec<u8>), Fault> {
    let key = rsa::RsaPrivateKey::new(&mut OsRng, bits).map_err(fault)?;
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(fault)?;
    let key = rcgen::KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &rcgen::PKCS_RSA_SHA256);
    key.and_then(request).map_err(fault)
}

/// Neither `ring` nor `rcgen` with it knows this curve, so the request is written here (RFC 2986, section 4).
fn p521() -> Result<(String, Vec<u8>), Fault> {
    const ECDSA_WITH_SHA512: &[u64] = &[1, 2, 840, 10045, 4, 3, 4];
    let key = p521::SecretKey::random(&mut OsRng);
    let public = key.public_key().to_public_key_der().map_err(fault)?;
    let info = yasna::construct_der(|to| {
        to.write_sequence(|to| {
            to.next().write_u8(0);
            // No subject.
            to.next().write_sequence(|_| {});
            to.next().write_der(public.as_bytes());
            // No attributes.
            to.next().write_tagged_implicit(yasna::Tag::context(0), |to| to.write_set(|_| {}));
        });
    });
    let signer = SigningKey::from_bytes(&key.to_bytes()).map_err(fault)?;
    let signature = Signature::to_der(&signer.sign(&info));
    let request = yasna::construct_der(|to| {
        to.write_sequence(|to| {
            to.next().write_der(&info);
            to.next().write_sequence(|to| {
                to.next().write_oid(&yasna::models::ObjectIdentifier::from_slice(ECDSA_WITH_SHA512));
            });
            to.next().write_bitvec_bytes(signature.as_bytes(), signature.as_bytes().len() * 8);
        });
    });
    Ok((key.to_pkcs8_pem(LineEnding::LF).map_err(fault)?.to_string(), request))
}

//! A certificate authority of a test's own, and a server's certificate for 127.0.0.1.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// PEM files in a folder.
#[derive(Debug, Clone)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes them in `folder`, which is made if absent. Each call makes another authority.
    ///
    /// # Panics
    ///
    /// Where `folder` cannot be written.
    #[must_use]
    pub fn make(folder: &Path) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let name = &mut authority.distinguished_name;
        name.push(DnType::CommonName, "falaj test authority");
        let key = KeyPair::generate().expect("a key");
        let root = authority.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(authority, key);

        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut server = CertificateParams::new(names).expect("names");
        let name = &mut server.distinguished_name;
        name.push(DnType::CommonName, "falaj test server");
        let key = KeyPair::generate().expect("a key");
        let leaf = server.signed_by(&key, &issuer).expect("a certificate");

        let made = Self {
            folder: folder.to_owned(),
        };
        std::fs::create_dir_all(folder).expect("the folder can be made");
        let key = key.serialize_pem();
        let chain = leaf.pem();
        for (path, text) in [
            (made.authority(), root.pem()),
            (made.server(), format!("{key}{chain}")),
            (made.server_key(), key),
            (made.server_chain(), chain),
        ] {
            std::fs::write(path, text).expect("the folder can be written");
        }
        made
    }

    /// The authority's certificate: what a client trusts (`ssl.ca.location`).
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The server's key and certificate in one file, as Kafka takes them.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    /// The server's key alone (PKCS #8).
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.folder.join("server.key")
    }

    /// The server's certificate alone.
    #[must_use]
    pub fn server_chain(&self) -> PathBuf {
        self.folder.join("server.crt")
    }
}

//! The country of an address, from an offline file in the `MaxMind DB` format.
//!
//! A guess about a network, right for a country most of the time and for a city hardly ever: so only the country, and
//! unknown is an ordinary answer. The file is read whole into memory (about 8 MB) and replaced at a reload.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use maxminddb::{MaxMindDbError, Reader, path};

/// What must be shown beside the data of `@ip-location-db/geo-whois-asn-country-mmdb` (its CC-BY-4.0 part).
pub const ATTRIBUTION: &str = "Country data: ip-location-db (geo-whois-asn-country, CC0) with data of the Number Resource Organization, CC BY 4.0.";

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("country file {}: {source}", path.display())]
pub struct GeoError {
    path: PathBuf,
    source: MaxMindDbError,
}

type Table = Arc<Reader<Vec<u8>>>;

/// The country table, if there is one. Cheap to clone; a reload is seen by every clone.
#[derive(Clone, Debug, Default)]
pub struct Countries {
    table: Arc<RwLock<Option<Table>>>,
}

impl Countries {
    /// Knows no country.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// Reads a file. `None`: every country is unknown.
    pub fn open(path: Option<&Path>) -> Result<Self, GeoError> {
        let countries = Self::default();
        countries.reload(path)?;
        Ok(countries)
    }

    /// Replaces the table; after an error the old one stays.
    pub fn reload(&self, path: Option<&Path>) -> Result<(), GeoError> {
        // No verify(): it rejects this file for its empty description; its lookups are sound.
        let read = |path: &Path| {
            Reader::open_readfile(path).map_err(|source| GeoError { path: path.to_owned(), source })
        };
        let table = path.map(read).transpose()?.map(Arc::new);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(())
    }

    /// ISO 3166-1 alpha-2 code of an address, upper-case, if the table has one.
    pub fn country(&self, address: IpAddr) -> Option<String> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let found = table.lookup(address.to_canonical()).ok()?;
        // This file writes `country_code`; MaxMind's own and those after its pattern write `country.iso_code`.
        let flat = found.decode_path::<&str>(&path!["country_code"]).ok().flatten();
        let code = flat.or_else(|| found.decode_path(&path!["country", "iso_code"]).ok().flatten())?;
        let good = code.len() == 2 && code.bytes().all(|octet| octet.is_ascii_alphabetic());
        good.then(|| code.to_ascii_uppercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text of up to 28 octets in `MaxMind DB` 2.0 data format.
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(0b010_00000 | u8::try_from(text.len()).unwrap());
        out.extend_from_slice(text.as_bytes());
    }

    fn map(out: &mut Vec<u8>, pairs: u8) {
        out.push(0b111_00000 | pairs);
    }

    fn number(out: &mut Vec<u8>, key: &str, kind: u8, octets: &[u8]) {
        text(out, key);
        out.push(kind << 5 | u8::try_from(octets.len()).unwrap());
        out.extend_from_slice(octets);
    }

    /// A whole IPv4 table (`MaxMind DB` 2.0): 203.0.113.0/24 is `flat`, 198.51.100.0/24 is `nested`, the rest unknown.
    fn table(flat: &str, nested: &str) -> Vec<u8> {
        let mut data = Vec::new();
        map(&mut data, 1);
        text(&mut data, "country_code");
        text(&mut data, flat);
        let second = data.len();
        map(&mut data, 1);
        text(&mut data, "country");
        map(&mut data, 1);
        text(&mut data, "iso_code");
        text(&mut data, nested);
        // A binary trie of 24-bit records: two paths of 24 steps that part at the first bit that differs.
        let nets =
            [(u32::from_be_bytes([203, 0, 113, 0]), 0), (u32::from_be_bytes([198, 51, 100, 0]), second)];
        let mut nodes: Vec<[Option<usize>; 2]> = vec![[None, None]];
        let mut leaves = Vec::new();
        for (net, offset) in nets {
            let mut node = 0;
            for step in 0..24 {
                let side = usize::from(net >> (31 - step) & 1 == 1);
                if step == 23 {
                    leaves.push((node, side, offset));
                } else if let Some(next) = nodes[node][side] {
                    node = next;
                } else {
                    nodes.push([None, None]);
                    nodes[node][side] = Some(nodes.len() - 1);
                    node = nodes.len() - 1;
                }
            }
        }
        let count = nodes.len();
        let mut tree = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            for (side, child) in node.iter().enumerate() {
                let leaf = leaves.iter().find(|leaf| (leaf.0, leaf.1) == (index, side));
                let value = leaf.map_or(child.unwrap_or(count), |leaf| count + 16 + leaf.2);
                tree.extend_from_slice(&u32::try_from(value).unwrap().to_be_bytes()[1..]);
            }
        }
        let mut meta = Vec::new();
        map(&mut meta, 9);
        number(&mut meta, "node_count", 6, &u32::try_from(count).unwrap().to_be_bytes());
        number(&mut meta, "record_size", 5, &[24]);
        number(&mut meta, "ip_version", 5, &[4]);
        text(&mut meta, "database_type");
        text(&mut meta, "test");
        number(&mut meta, "binary_format_major_version", 5, &[2]);
        number(&mut meta, "binary_format_minor_version", 5, &[]);
        // Types past 7 are extended: 9 is a 64-bit number, 11 an array.
        text(&mut meta, "build_epoch");
        meta.extend_from_slice(&[1, 9 - 7, 1]);
        text(&mut meta, "languages");
        meta.extend_from_slice(&[0, 11 - 7]);
        text(&mut meta, "description");
        map(&mut meta, 0);
        [tree, vec![0; 16], data, b"\xab\xcd\xefMaxMind.com".to_vec(), meta].concat()
    }

    #[test]
    fn looks_up_both_forms_and_reloads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("country.mmdb");
        std::fs::write(&path, table("de", "CA")).unwrap();
        let countries = Countries::open(Some(&path)).unwrap();
        let country = |address: &str| countries.country(address.parse().unwrap());
        assert_eq!(country("203.0.113.7").as_deref(), Some("DE"));
        assert_eq!(country("::ffff:203.0.113.7").as_deref(), Some("DE"));
        assert_eq!(country("198.51.100.200").as_deref(), Some("CA"));
        assert_eq!(country("192.0.2.1"), None);
        assert_eq!(country("2001:db8::1"), None);

        std::fs::write(&path, table("FR", "<>")).unwrap();
        countries.clone().reload(Some(&path)).unwrap();
        assert_eq!(country("203.0.113.7").as_deref(), Some("FR"));
        assert_eq!(country("198.51.100.200"), None, "not a country code");

        std::fs::write(&path, b"not a table").unwrap();
        assert!(countries.reload(Some(&path)).unwrap_err().to_string().contains("country.mmdb"));
        assert_eq!(country("203.0.113.7").as_deref(), Some("FR"), "the old table stays");
        countries.reload(None).unwrap();
        assert_eq!(country("203.0.113.7"), None);
    }
}

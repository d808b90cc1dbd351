//! Volumes of QEMU's are opened, and QEMU opens and reads ours: every cipher and hash.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rimg_core::{Limits, Secret, Storage};
use rimg_crypto::luks1::{HEADER_BYTES, Header, Iterations, NewVolume, Volume};
use rimg_crypto::{CipherSpec, Hash, OsRandom};
use rimg_testkit::MemoryStorage;
use rimg_testkit::peer::Peer;
use std::fs;
use std::path::Path;

const PASSPHRASE: &str = "correct horse";
const SECRET: &str = "secret,id=s,data=correct horse";
const DISK_BYTES: usize = 96 << 10;

/// Options of qemu-img, and the cipher and hash that they mean.
fn volumes() -> Vec<(&'static str, NewVolume)> {
    let volume = |mode, key_bytes, hash| NewVolume {
        cipher: CipherSpec::from_luks("aes", mode, key_bytes).unwrap(),
        hash,
    };
    let other = |name, mode, key_bytes| NewVolume {
        cipher: CipherSpec::from_luks(name, mode, key_bytes).unwrap(),
        hash: Hash::Sha256,
    };
    vec![
        ("", volume("xts-plain64", 64, Hash::Sha256)),
        ("cipher-alg=aes-192,hash-alg=sha1", volume("xts-plain64", 48, Hash::Sha1)),
        ("cipher-alg=aes-128,ivgen-alg=plain", volume("xts-plain", 32, Hash::Sha256)),
        ("ivgen-hash-alg=sha1,hash-alg=sha224", volume("xts-plain64:sha1", 64, Hash::Sha224)),
        ("cipher-mode=cbc,hash-alg=sha384", volume("cbc-plain64", 32, Hash::Sha384)),
        (
            "cipher-mode=cbc,ivgen-alg=essiv,hash-alg=sha512",
            volume("cbc-essiv:sha256", 32, Hash::Sha512),
        ),
        (
            "cipher-mode=cbc,cipher-alg=aes-128,ivgen-alg=plain,hash-alg=ripemd160",
            volume("cbc-plain", 16, Hash::Ripemd160),
        ),
        ("cipher-mode=ecb", volume("ecb-plain64", 32, Hash::Sha256)),
        ("cipher-mode=ctr,hash-alg=md5", volume("ctr-plain64", 32, Hash::Md5)),
        ("ivgen-alg=essiv,hash-alg=sm3", volume("xts-essiv:sha256", 64, Hash::Sm3)),
        ("cipher-alg=serpent-256", other("serpent", "xts-plain64", 64)),
        ("cipher-alg=serpent-128,cipher-mode=ctr", other("serpent", "ctr-plain64", 16)),
        (
            "cipher-alg=serpent-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sm3",
            other("serpent", "cbc-essiv:sm3", 32),
        ),
        ("cipher-alg=twofish-256", other("twofish", "xts-plain64", 64)),
        (
            "cipher-alg=twofish-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=md5",
            other("twofish", "cbc-essiv:md5", 16),
        ),
        ("cipher-alg=cast5-128,cipher-mode=cbc", other("cast5", "cbc-plain64", 16)),
        ("cipher-alg=cast5-128,cipher-mode=ctr", other("cast5", "ctr-plain64", 16)),
        (
            "cipher-alg=cast5-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=md5",
            other("cast5", "cbc-essiv:md5", 16),
        ),
    ]
}

fn contents() -> Vec<u8> {
    (0..DISK_BYTES).map(|i| u8::try_from((i / 7) % 251).unwrap()).collect()
}

#[test]
fn volumes_of_qemu_are_opened() {
    let (Some(qemu_img), Some(qemu_io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    for (options, expected) in volumes() {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("key-secret=s,iter-time=1,{options}");
        let options = options.trim_end_matches(',');
        qemu_img
            .in_dir(&dir)
            .ok(["create", "-q", "-f", "luks", "--object", SECRET, "-o", options, "a.luks", "96k"]);
        fs::write(dir.path().join("plain"), contents()).unwrap();
        qemu_io.in_dir(&dir).ok([
            "--object",
            SECRET,
            "--image-opts",
            "driver=luks,key-secret=s,file.filename=a.luks",
            "-c",
            "write -s plain 0 96k",
        ]);
        let file = MemoryStorage::from(fs::read(dir.path().join("a.luks")).unwrap());
        let mut head = [0; HEADER_BYTES];
        file.read_exact_at(&mut head, 0).unwrap();
        let header = Header::parse(&head, 0).unwrap();
        assert_eq!(header.encode(), head, "{options}");
        assert_eq!(header.cipher(), Ok(expected.cipher), "{options}");
        assert_eq!(header.hash(), Ok(expected.hash), "{options}");
        assert_eq!(header.payload_offset(), expected.header_bytes(), "{options}");

        let limits = Limits::default();
        let unlock = |word: &str| header.unlock(&file, 0, &Secret::from(word), &limits).unwrap();
        assert!(unlock("wrong").is_none(), "{options}");
        let opened = unlock(PASSPHRASE).unwrap();
        let mut data = vec![0; DISK_BYTES];
        file.read_exact_at(&mut data, header.payload_offset()).unwrap();
        header.data_cipher(&opened.master_key).unwrap().decrypt(&mut data, 0).unwrap();
        assert!(data == contents(), "{options}");
    }
}

#[test]
fn qemu_opens_our_volumes() {
    let (Some(qemu_img), Some(qemu_io)) = (Peer::qemu_img(), Peer::qemu_io()) else { return };
    for (options, new) in volumes() {
        let dir = tempfile::tempdir().unwrap();
        let first = Secret::from("first");
        let mut made = Volume::new(&new, &first, Iterations::LEAST, &mut OsRandom).unwrap();
        // A second passphrase, and the first one gone.
        let (key, second) = (made.master_key.clone(), Secret::from(PASSPHRASE));
        let area = made.header.fill_slot(5, &second, &key, 1234, &mut OsRandom).unwrap();
        let erased = made.header.erase_slot(0, &mut OsRandom).unwrap();
        let mut data = contents();
        made.header.data_cipher(&key).unwrap().encrypt(&mut data, 0).unwrap();
        let pieces = [
            (0, made.header.encode().to_vec()),
            (erased.offset, erased.bytes),
            (area.offset, area.bytes),
            (made.header.payload_offset(), data),
        ];
        write(&dir.path().join("a.luks"), &pieces);
        let image = "driver=luks,key-secret=s,file.filename=a.luks";
        let convert = |secret: &str| {
            qemu_img.in_dir(&dir).run([
                "convert",
                "--object",
                secret,
                "--image-opts",
                image,
                "-O",
                "raw",
                "plain",
            ])
        };
        assert_eq!(convert(SECRET).stderr, "", "{options}");
        assert!(fs::read(dir.path().join("plain")).unwrap() == contents(), "{options}");
        let refused = convert("secret,id=s,data=first").stderr;
        assert!(refused.contains("Invalid password"), "{options}: {refused}");
        let out = qemu_io.in_dir(&dir).ok([
            "--object",
            SECRET,
            "--image-opts",
            image,
            "-c",
            "write -P 7 0 4k",
            "-c",
            "read -P 7 0 4k",
        ]);
        assert!(!out.contains("failed"), "{out}");
    }
}

fn write(path: &Path, pieces: &[(u64, Vec<u8>)]) {
    let mut file = Vec::new();
    for (at, bytes) in pieces {
        let at = usize::try_from(*at).unwrap();
        file.resize(file.len().max(at + bytes.len()), 0);
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    fs::write(path, file).unwrap();
}

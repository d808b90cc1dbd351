use super::*;
use crate::test::hex;

fn spec(algorithm: CipherAlgorithm, mode: CipherMode, iv: IvGenerator) -> CipherSpec {
    let iv_hash = (iv == IvGenerator::Essiv).then_some(Hash::Sha256);
    CipherSpec { algorithm, mode, iv, iv_hash }
}

/// Whole sectors that count up.
fn counting(sectors: usize) -> Vec<u8> {
    (0..sectors * 512).map(|i| u8::try_from(i % 256).unwrap()).collect()
}

#[test]
fn xts_by_ieee_1619() {
    let xts = |algorithm| spec(algorithm, CipherMode::Xts, IvGenerator::Plain64);
    // Vectors 4 and 10 of annex B: sectors of 512 bytes, keys of 128 and 256 bits.
    let vectors = [
        (
            CipherAlgorithm::Aes128,
            "27182818284590452353602874713526 31415926535897932384626433832795",
            0,
            "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c",
        ),
        (
            CipherAlgorithm::Aes256,
            "2718281828459045235360287471352662497757247093699959574966967627
             3141592653589793238462643383279502884197169399375105820974944592",
            0xff,
            "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b",
        ),
    ];
    for (algorithm, key, sector, start) in vectors {
        let cipher = SectorCipher::new(xts(algorithm), &hex(key)).unwrap();
        let mut data = counting(1);
        cipher.encrypt(&mut data, sector).unwrap();
        assert_eq!(data[..32], hex(start), "{algorithm:?}");
        cipher.decrypt(&mut data, sector).unwrap();
        assert_eq!(data, counting(1), "{algorithm:?}");
    }
}

#[test]
fn cbc_by_nist() {
    // SP 800-38A, F.2: the vector there is none of a sector's, so the first block is turned into
    // one that gives the same input to the cipher.
    let vector = hex("000102030405060708090a0b0c0d0e0f");
    let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51
         30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710");
    for (algorithm, key, expected) in [
        (
            CipherAlgorithm::Aes128,
            "2b7e151628aed2a6abf7158809cf4f3c",
            "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2
             73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7",
        ),
        (
            CipherAlgorithm::Aes192,
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a
             571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd",
        ),
        (
            CipherAlgorithm::Aes256,
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d
             39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
        ),
    ] {
        let cbc = spec(algorithm, CipherMode::Cbc, IvGenerator::Plain64);
        let cipher = SectorCipher::new(cbc, &hex(key)).unwrap();
        // The vector of sector 0 is all zeroes.
        let mut data = plain.clone();
        for (byte, vector) in data.iter_mut().zip(&vector) {
            *byte ^= vector;
        }
        data.resize(512, 0);
        let before = data.clone();
        cipher.encrypt(&mut data, 0).unwrap();
        assert_eq!(data[..64], hex(expected), "{algorithm:?}");
        cipher.decrypt(&mut data, 0).unwrap();
        assert_eq!(data, before, "{algorithm:?}");
    }
}

#[test]
fn ecb_by_nist() {
    let ecb = spec(CipherAlgorithm::Aes128, CipherMode::Ecb, IvGenerator::Plain64);
    let cipher = SectorCipher::new(ecb, &hex("2b7e151628aed2a6abf7158809cf4f3c")).unwrap();
    let mut data = hex("6bc1bee22e409f96e93d7e117393172a");
    data.resize(512, 0);
    cipher.encrypt(&mut data, 77).unwrap();
    assert_eq!(data[..16], hex("3ad77bb40d7a3660a89ecaf32466ef97"));
}

/// One sector at a time, as the definitions have it.
#[test]
fn many_sectors_are_as_one_by_one() {
    for algorithm in CipherAlgorithm::ALL {
        for mode in CipherMode::ALL {
            for iv in IvGenerator::ALL {
                let spec = spec(algorithm, mode, iv);
                if spec.check().is_err() {
                    assert_eq!(algorithm, CipherAlgorithm::Cast5);
                    continue;
                }
                let key: Vec<u8> = (0..64).collect();
                let cipher = SectorCipher::new(spec, &key[..spec.key_bytes()]).unwrap();
                for sectors in [1, 7, 8, 9, 33] {
                    let first = u64::from(u32::MAX) - 4;
                    let mut all = counting(sectors);
                    cipher.encrypt(&mut all, first).unwrap();
                    let mut one_by_one = counting(sectors);
                    for (sector, data) in (first..).zip(one_by_one.chunks_mut(512)) {
                        cipher.encrypt(data, sector).unwrap();
                    }
                    assert!(all == one_by_one, "{spec:?} {sectors}");
                    cipher.decrypt(&mut all, first).unwrap();
                    assert!(all == counting(sectors), "{spec:?} {sectors}");
                }
            }
        }
    }
}

#[test]
fn large_sectors_are_numbered_in_small_ones() {
    let key: Vec<u8> = (0..64).collect();
    let small = SectorCipher::new(CipherSpec::AES_256_XTS, &key).unwrap();
    for sector_bytes in [1024, 2048, 4096] {
        let large =
            SectorCipher::with_sector_bytes(CipherSpec::AES_256_XTS, &key, sector_bytes).unwrap();
        let mut data = counting(32);
        large.encrypt(&mut data, 8).unwrap();
        let step = usize::try_from(sector_bytes).unwrap();
        for (index, sector) in data.chunks(step).enumerate() {
            let mut start = counting(1);
            let number = 8 + u64::try_from(index * step / 512).unwrap();
            small.encrypt(&mut start, number).unwrap();
            assert_eq!(sector[..512], start, "{sector_bytes} {index}");
        }
        large.decrypt(&mut data, 8).unwrap();
        assert_eq!(data, counting(32));
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let essiv = |hash| CipherSpec {
        algorithm: CipherAlgorithm::Aes256,
        mode: CipherMode::Cbc,
        iv: IvGenerator::Essiv,
        iv_hash: Some(hash),
    };
    let new = |spec, key: &[u8]| SectorCipher::new(spec, key).map(|_| ()).unwrap_err();
    let wrong = CipherError::EssivHash(CipherAlgorithm::Aes256, Hash::Sha1);
    assert_eq!(new(essiv(Hash::Sha1), &[0; 32]), wrong);
    assert_eq!(wrong.to_string(), "No AES cipher with key size 20 available");
    let cast5 = CipherError::EssivHash(CipherAlgorithm::Cast5, Hash::Sha256);
    assert_eq!(cast5.to_string(), "Cipher cast5-128 not supported with essiv");
    let xts = spec(CipherAlgorithm::Cast5, CipherMode::Xts, IvGenerator::Plain);
    assert_eq!(new(xts, &[0; 32]), CipherError::Mode(CipherMode::Xts));
    let length = CipherError::KeyLength { needed: 64, given: 32 };
    assert_eq!(new(CipherSpec::AES_256_XTS, &[0; 32]), length);
    for bytes in [0, 256, 511, 1536, 8192] {
        let large = SectorCipher::with_sector_bytes(CipherSpec::AES_256_XTS, &[0; 64], bytes);
        assert_eq!(large.map(|_| ()).unwrap_err(), CipherError::SectorBytes(bytes));
    }
    let cipher = SectorCipher::new(CipherSpec::AES_256_XTS, &[0; 64]).unwrap();
    assert!(matches!(cipher.encrypt(&mut [0; 513], 0), Err(Error::Misuse(_))));
}

#[test]
fn words_of_luks_go_both_ways() {
    for (mode, key_bytes) in [
        ("xts-plain64", 64),
        ("xts-plain", 32),
        ("xts-plain64:sha1", 48),
        ("cbc-plain", 16),
        ("cbc-essiv:sha256", 24),
        ("ecb-plain64", 32),
    ] {
        let spec = CipherSpec::from_luks("aes", mode, key_bytes).unwrap();
        assert_eq!((&*spec.luks_mode(), spec.key_bytes()), (mode, key_bytes));
    }
    for (name, mode, key_bytes) in [
        ("aes", "xts-plain64", 16),
        ("aes", "cbc-plain64", 64),
        ("aes", "xts", 64),
        ("aes", "", 64),
        ("aes", "cbc-essiv", 32),
        ("aes", "cbc-essiv:whirlpool", 32),
        ("camellia", "xts-plain64", 64),
        ("cast5", "xts-plain64", 32),
    ] {
        assert!(CipherSpec::from_luks(name, mode, key_bytes).is_err(), "{name} {mode}");
    }
    let sha1 = CipherSpec::from_luks("aes", "cbc-essiv:sha1", 32);
    assert_eq!(sha1, Err(CipherError::EssivHash(CipherAlgorithm::Aes256, Hash::Sha1)));
    let serpent = CipherSpec::from_luks("serpent", "ctr-plain64", 24).unwrap();
    assert_eq!((serpent.algorithm, serpent.luks_name()), (CipherAlgorithm::Serpent192, "serpent"));
}

#[test]
fn debug_shows_no_key() {
    let cipher = SectorCipher::new(CipherSpec::AES_256_XTS, &[0xab; 64]).unwrap();
    let shown = format!("{cipher:?}");
    assert!(!shown.contains("171") && !shown.contains("ab, ab"), "{shown}");
}

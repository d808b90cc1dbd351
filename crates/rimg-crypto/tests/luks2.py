"""Makes tests/luks2.img: a small LUKS2 volume, by the specification and with the Python package
"cryptography", so that the crate is compared with something that it did not compute.

Two key slots: 0 has Argon2id and the passphrase "id", 1 has PBKDF2 and the passphrase "pbkdf2".
The data is 8192 bytes in sectors of 4096, numbered from 64: byte i is i % 251. The second header is
the newer one; the first one is as it was before slot 1 was filled.
"""

import base64
import hashlib
import json
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

HEADER = 16384
AREA = 131072
KEY_BYTES = 32
STRIPES = 4000
DATA_AT = 2 * HEADER + 2 * AREA


def pseudo_random(seed, count):
    return hashlib.shake_128(seed).digest(count)


def xts(key, data, first_sector, sector_bytes, step):
    out = b""
    for index in range(len(data) // sector_bytes):
        tweak = struct.pack("<QQ", first_sector + index * step, 0)
        encryptor = Cipher(algorithms.AES(key), modes.XTS(tweak)).encryptor()
        out += encryptor.update(data[index * sector_bytes : (index + 1) * sector_bytes])
    return out


def diffuse(block):
    out = b""
    for index in range(0, len(block), 32):
        out += hashlib.sha256(struct.pack(">I", index // 32) + block[index : index + 32]).digest()
    return out[: len(block)]


def xor(one, other):
    return bytes(a ^ b for a, b in zip(one, other))


def split(key, seed):
    stripes = pseudo_random(seed, KEY_BYTES * (STRIPES - 1))
    block = bytes(KEY_BYTES)
    for index in range(0, len(stripes), KEY_BYTES):
        block = diffuse(xor(block, stripes[index : index + KEY_BYTES]))
    return stripes + xor(block, key)


def b64(data):
    return base64.b64encode(data).decode()


def header(metadata, magic, sequence, offset):
    body = json.dumps(metadata).encode().ljust(HEADER - 4096, b"\0")
    binary = struct.pack(">6sHQQ", magic, 2, HEADER, sequence)
    binary += b"test".ljust(48, b"\0") + b"sha256".ljust(32, b"\0")
    binary += pseudo_random(b"header salt", 64)
    binary += b"01234567-89ab-4cde-8f01-23456789abcd".ljust(40, b"\0") + bytes(48)
    binary += struct.pack(">Q", offset)
    binary = binary.ljust(4096, b"\0")
    checksum = hashlib.sha256(binary + body).digest()
    return binary[:448] + checksum + binary[480:] + body


def slot(kdf, index):
    return {
        "type": "luks2",
        "key_size": KEY_BYTES,
        "af": {"type": "luks1", "stripes": STRIPES, "hash": "sha256"},
        "area": {
            "type": "raw",
            "offset": str(2 * HEADER + index * AREA),
            "size": str(AREA),
            "encryption": "aes-xts-plain64",
            "key_size": KEY_BYTES,
        },
        "kdf": kdf,
    }


def main():
    key = pseudo_random(b"key", KEY_BYTES)
    salts = [pseudo_random(b"salt %d" % index, 32) for index in range(3)]
    argon = Argon2id(salt=salts[0], length=KEY_BYTES, iterations=2, lanes=2, memory_cost=64)
    derived = [
        argon.derive(b"id"),
        hashlib.pbkdf2_hmac("sha512", b"pbkdf2", salts[1], 1500, KEY_BYTES),
    ]
    slots = [
        slot({"type": "argon2id", "time": 2, "memory": 64, "cpus": 2, "salt": b64(salts[0])}, 0),
        slot({"type": "pbkdf2", "hash": "sha512", "iterations": 1500, "salt": b64(salts[1])}, 1),
    ]
    digest = hashlib.pbkdf2_hmac("sha256", key, salts[2], 1000, 32)

    def metadata(count):
        ids = [str(index) for index in range(count)]
        return {
            "keyslots": {index: slots[int(index)] for index in ids},
            "tokens": {},
            "segments": {
                "0": {
                    "type": "crypt",
                    "offset": str(DATA_AT),
                    "size": "dynamic",
                    "iv_tweak": "64",
                    "encryption": "aes-xts-plain64",
                    "sector_size": 4096,
                }
            },
            "digests": {
                "0": {
                    "type": "pbkdf2",
                    "keyslots": ids,
                    "segments": ["0"],
                    "hash": "sha256",
                    "iterations": 1000,
                    "salt": b64(salts[2]),
                    "digest": b64(digest),
                }
            },
            "config": {"json_size": str(HEADER - 4096), "keyslots_size": str(2 * AREA)},
        }

    image = header(metadata(1), b"LUKS\xba\xbe", 5, 0)
    image += header(metadata(2), b"SKUL\xba\xbe", 6, HEADER)
    for index in range(2):
        stripes = split(key, b"stripes %d" % index)
        image += xts(derived[index], stripes, 0, 512, 1).ljust(AREA, b"\0")
    data = bytes(index % 251 for index in range(8192))
    image += xts(key, data, 64, 4096, 8)
    Path(__file__).with_name("luks2.img").write_bytes(image)


main()

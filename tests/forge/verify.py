#!/usr/bin/env python3
"""A second verifier of bundles, written from docs/formats.md; it shares nothing with the tool but that page.

    verify.py KEYS BUNDLE...     prints "BUNDLE ok IDENTITY" or "BUNDLE refused: WHY" for each
"""
import base64, hashlib, json, pathlib, re, subprocess, sys, tempfile

BLOCK, NAMESPACE, LIMIT, WORD = 512, "citrine-bundle", (1 << 53) - 1, (1 << 32) - 1
ROLES = "kernel|rootfs|hypervisor|hardware-tree|configuration|script|profile|checksums|signature"
KINDS = "source|package|crate|toolchain|file|recipe"
# A signature for the firmware: nothing else varies in it. The first gap is the key, the last the signature itself.
FIRMWARE = (b"SSHSIG\0\0\0\1\0\0\0\x33\0\0\0\x0bssh-ed25519\0\0\0\x20%b\0\0\0\x0ecitrine-config\0\0\0\0"
            b"\0\0\0\6sha512\0\0\0\x53\0\0\0\x0bssh-ed25519\0\0\0\x40%b")
ARMOUR = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
KEY_TYPES = (b"ssh-ed25519", b"ecdsa-sha2-nistp256")
Refused = type("Refused", (Exception,), {})


def need(holds, why):
    if not holds:
        raise Refused(why)


def files(data):
    """The (name, time, bytes) of every file of the archive, which must be spelled in the one way."""
    at, found = 0, []
    while True:
        block = data[at:at + BLOCK]
        need(len(block) == BLOCK, "cut short")
        if block == bytes(BLOCK):
            need(data[at:] == bytes(2 * BLOCK), "the end is not two blocks of zeros")
            return found
        name = block[:100].rstrip(b"\0")
        need(re.fullmatch(rb"[0-7]{11}\0", block[124:136]) and re.fullmatch(rb"[0-7]{11}\0", block[136:148]), "numbers")
        size, time = int(block[124:135], 8), int(block[136:147], 8)
        fixed = (name.ljust(100, b"\0") + b"0000644\x00" + b"0000000\x00" * 2 + block[124:148] + b" " * 8 + b"0"
                 + bytes(100) + b"ustar\x0000" + bytes(247))
        need(len(fixed) == BLOCK and block == fixed[:148] + b"%07o\0" % sum(fixed) + fixed[156:], "header")
        start, end, at = at + BLOCK, at + BLOCK + size, at + BLOCK + -(-size // BLOCK) * BLOCK
        need(at <= len(data) and data[end:at] == bytes(at - end), "padding, or cut short")
        found.append((name.decode("ascii", "replace"), time, data[start:end]))


def openssh(*arguments, message=b""):
    return subprocess.run(["ssh-keygen", "-Y", *arguments], input=message, capture_output=True)


def field(blob, at):
    length = int.from_bytes(blob[at:at + 4], "big")
    need(at + 4 + length <= len(blob), "the signature is cut short")
    return blob[at + 4:at + 4 + length], at + 4 + length


def signature(text, manifest, keys, directory):
    """Checks one signature file; its key's fingerprint, and whether the key is trusted."""
    need(len(text) <= 4096, "the signature is too long")
    need(text.startswith(ARMOUR[0]) and text.endswith(b"\n" + ARMOUR[1]), "armour")
    lines = text[len(ARMOUR[0]):-len(ARMOUR[1])]
    need(re.fullmatch(rb"([A-Za-z0-9+/]{4})+|([A-Za-z0-9+/]{4})*[A-Za-z0-9+/]{2,3}={1,2}", lines.replace(b"\n", b"")), "base64")
    blob = base64.b64decode(lines)
    body = base64.b64encode(blob)
    need(lines == b"".join(body[i:i + 70] + b"\n" for i in range(0, len(body), 70)), "wrapped otherwise")
    need(blob[:10] == b"SSHSIG\0\0\0\1", "version")
    key, at = field(blob, 10)
    need(field(key, 0)[0] in KEY_TYPES and field(blob, at)[0] == NAMESPACE.encode(), "key type, or namespace")
    path = pathlib.Path(directory, "sig")
    path.write_bytes(text)
    need(openssh("check-novalidate", "-n", NAMESPACE, "-s", path, message=manifest).returncode == 0, "signature")
    found = openssh("find-principals", "-f", keys, "-s", path)
    who = ["-I", found.stdout.decode().split("\n")[0], "-f", keys]
    believed = openssh("verify", "-n", NAMESPACE, *who, "-s", path, message=manifest)
    return hashlib.sha256(key).digest(), found.returncode == believed.returncode == 0


def integer(value, most):
    need(type(value) is int and 0 <= value <= most, "integer")


def members(value, required, optional=""):
    required = set(required.split())
    need(type(value) is dict and required <= set(value) <= required | set(optional.split()), "members")


def text(value, pattern):
    need(type(value) is str and re.fullmatch(pattern, value), "text")


def manifest_of(raw):
    need(len(raw) <= 1 << 20, "the manifest is too long")
    manifest = json.loads(raw)
    need((json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode() == raw, "not canonical")
    members(manifest, "board core epoch format inputs parts plan_sha256 profile soc source_date_epoch")
    name = r"(?![.-])(?i:(?!manifest\.json))[A-Za-z0-9._-]{1,64}"
    for key in ("board", "core", "profile", "soc"):
        text(manifest[key], name.replace("A-Z", ""))
    text(manifest["plan_sha256"], "[0-9a-f]{64}")
    integer(manifest["epoch"], WORD), integer(manifest["source_date_epoch"], WORD)
    need(manifest["format"] == 2 and 1 <= len(manifest["parts"]) <= 256, "format, or number of parts")
    trees = []
    for part in manifest["parts"]:
        signs = part.get("role") == "signature"
        proof = "key" if signs else "sha256"
        members(part, "name role size slots " + proof, "" if signs else "entry uncompressed")
        text(part["name"], name), text(part[proof], "[0-9a-f]{64}"), text(part["role"], ROLES)
        integer(part["size"], WORD), integer(part.get("entry", 0), LIMIT), integer(part.get("uncompressed", 0), WORD)
        need([s.get("media") for s in part["slots"]] in ([], ["nor"], ["ram"], ["nor", "ram"]), "media")
        for slot in part["slots"]:
            members(slot, "load media window")
            integer(slot["window"], LIMIT), integer(slot["load"], LIMIT - slot["window"]), integer(part["size"], slot["window"])
        need(not signs or part["name"] in trees and part["size"] == 184, "signature of what")
        trees += [part["name"] + ".sig"] * (part["role"] == "configuration")
    need(len({part["name"].lower() for part in manifest["parts"]}) == len(manifest["parts"]), "names")
    for item in manifest["inputs"]:
        members(item, "kind name origin version", "sha256 size")
        text(item["kind"], KINDS), text(item["name"], "[ -~]{1,512}")
        text(item["origin"], "[ -~]{0,512}"), text(item["version"], "[ -~]{0,512}")
        text(item.get("sha256", "0" * 64), "[0-9a-f]{64}"), integer(item.get("size", 0), LIMIT)
    return manifest


def verify(data, keys, directory):
    found = files(data)
    need(found and found[0][0] == "manifest.json", "the first file is not the manifest")
    raw, rest, checked = found[0][2], found[1:], []
    names = ["manifest.json.sig"] + [f"manifest.json.{index}.sig" for index in range(2, 17)]
    while rest and rest[0][0] == (names[len(checked):] or [None])[0]:
        checked.append(signature(rest.pop(0)[2], raw, keys, directory))
    need(checked and all(trusted for _, trusted in checked), "no signature, or one that is not trusted")
    prints = [fingerprint for fingerprint, _ in checked]
    need(prints == sorted(set(prints)), "order of signatures")
    manifest = manifest_of(raw)
    need({time for _, time, _ in found} == {manifest["source_date_epoch"]}, "time")
    need([name for name, _, _ in rest] == [part["name"] for part in manifest["parts"]], "files")
    for part, (_, _, data) in zip(manifest["parts"], rest):
        need(part["size"] == len(data) and part.get("sha256") in (None, hashlib.sha256(data).hexdigest()), "bytes")
        if "key" in part and any(data):
            need(data == FIRMWARE % (bytes.fromhex(part["key"]), data[120:]), "signature of the configuration")
            path = pathlib.Path(directory, "sig")
            path.write_bytes(ARMOUR[0] + base64.encodebytes(data) + ARMOUR[1])
            tree = next(tree for name, _, tree in rest if name + ".sig" == part["name"])
            need(not openssh("check-novalidate", "-n", "citrine-config", "-s", path, message=tree).returncode, "configuration")
    return hashlib.sha256(raw).hexdigest()


with tempfile.TemporaryDirectory() as directory:
    for path in sys.argv[2:]:
        try:
            print(path, "ok", verify(pathlib.Path(path).read_bytes(), sys.argv[1], directory))
        except (Refused, ValueError, RecursionError) as why:
            print(path, "refused:", why)

#!/usr/bin/env python3
"""A second verifier of bundles, written from docs/formats.md; it shares nothing with the tool but that page.

    verify.py KEYS BUNDLE...     prints "BUNDLE ok IDENTITY" or "BUNDLE refused: WHY" for each
"""
import base64, hashlib, json, os, re, subprocess, sys, tempfile

BLOCK, NAMESPACE, LIMIT, WORD = 512, "citrine-bundle", (1 << 53) - 1, (1 << 32) - 1
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
        start, end = at + BLOCK, at + BLOCK + size
        at = start + -(-size // BLOCK) * BLOCK
        need(at <= len(data) and data[end:at] == bytes(at - end), "padding, or cut short")
        found.append((name.decode("ascii", "replace"), time, data[start:end]))


def openssh(arguments, manifest):
    return subprocess.run(["ssh-keygen", "-Y", *arguments], input=manifest, capture_output=True)


def field(blob, at):
    length = int.from_bytes(blob[at:at + 4], "big")
    need(at + 4 + length <= len(blob), "the signature is cut short")
    return blob[at + 4:at + 4 + length], at + 4 + length


def signature(text, manifest, keys, directory):
    """Checks one signature file; its key's fingerprint, and whether the key is trusted."""
    need(len(text) <= 4096, "the signature is too long")
    lines = text.decode("ascii", "replace").split("\n")
    need(lines[0] == "-----BEGIN SSH SIGNATURE-----" and lines[-2:] == ["-----END SSH SIGNATURE-----", ""], "armour")
    try:
        blob = base64.b64decode("".join(lines[1:-2]), validate=True)
    except ValueError:
        raise Refused("base64")
    body = base64.b64encode(blob).decode()
    need(lines[1:-2] == [body[i:i + 70] for i in range(0, len(body), 70)], "wrapped otherwise")
    need(blob[:10] == b"SSHSIG\0\0\0\1", "version")
    key, at = field(blob, 10)
    need(field(key, 0)[0] in KEY_TYPES, "key type")
    purpose, at = field(blob, at)
    need(purpose == NAMESPACE.encode(), "namespace")
    path = os.path.join(directory, "sig")
    with open(path, "wb") as file:
        file.write(text)
    need(openssh(["check-novalidate", "-n", NAMESPACE, "-s", path], manifest).returncode == 0, "signature")
    found = openssh(["find-principals", "-f", keys, "-s", path], b"")
    who = found.stdout.decode().split("\n")[0]
    trusted = found.returncode == 0 and openssh(
        ["verify", "-n", NAMESPACE, "-f", keys, "-I", who, "-s", path], manifest).returncode == 0
    return hashlib.sha256(key).digest(), trusted


def integer(value, most):
    need(type(value) is int and 0 <= value <= most, "integer")


def members(value, required, optional=()):
    need(type(value) is dict and set(required) <= set(value) <= set(required) | set(optional), "members")


def text(value, pattern):
    need(type(value) is str and re.fullmatch(pattern, value), "text")


def manifest_of(raw):
    need(len(raw) <= 1 << 20, "the manifest is too long")
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused("json")
    need((json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode() == raw, "not canonical")
    members(manifest, ["board", "core", "epoch", "format", "inputs", "parts", "plan_sha256", "profile", "soc",
                       "source_date_epoch"])
    need(manifest["format"] == 1, "format")
    name = r"(?![.-])(?i:(?!manifest\.json))[A-Za-z0-9._-]{1,64}"
    for key in ("board", "core", "profile", "soc"):
        text(manifest[key], name)
        need(manifest[key] == manifest[key].lower(), "capitals")
    integer(manifest["epoch"], WORD), integer(manifest["source_date_epoch"], WORD), text(manifest["plan_sha256"], "[0-9a-f]{64}")
    need(1 <= len(manifest["parts"]) <= 256, "parts")
    for part in manifest["parts"]:
        members(part, ["name", "role", "sha256", "size", "slots"], ["entry", "uncompressed"])
        text(part["name"], name), text(part["sha256"], "[0-9a-f]{64}")
        text(part["role"], "kernel|rootfs|hypervisor|hardware-tree|configuration|script|profile|checksums")
        integer(part["size"], WORD), integer(part.get("entry", 0), LIMIT), integer(part.get("uncompressed", 0), WORD)
        need([s.get("media") for s in part["slots"]] in ([], ["nor"], ["ram"], ["nor", "ram"]), "media")
        for slot in part["slots"]:
            members(slot, ["load", "media", "window"])
            integer(slot["window"], LIMIT), integer(slot["load"], LIMIT - slot["window"])
            need(part["size"] <= slot["window"], "window")
    need(len({part["name"].lower() for part in manifest["parts"]}) == len(manifest["parts"]), "names")
    for item in manifest["inputs"]:
        members(item, ["kind", "name", "origin", "version"], ["sha256", "size"])
        text(item["kind"], "source|package|crate|toolchain|file")
        text(item["name"], "[ -~]{1,512}"), text(item["origin"], "[ -~]{0,512}"), text(item["version"], "[ -~]{0,512}")
        text(item.get("sha256", "0" * 64), "[0-9a-f]{64}"), integer(item.get("size", 0), LIMIT)
    return manifest


def verify(data, keys, directory):
    found = files(data)
    need(found and found[0][0] == "manifest.json", "the first file is not the manifest")
    raw, rest = found[0][2], found[1:]
    checked = []
    while rest and len(checked) < 16:
        if rest[0][0] != ("manifest.json.sig" if not checked else f"manifest.json.{len(checked) + 1}.sig"):
            break
        checked.append(signature(rest.pop(0)[2], raw, keys, directory))
    need(any(trusted for _, trusted in checked), "no trusted signature")
    prints = [fingerprint for fingerprint, _ in checked]
    need(prints == sorted(set(prints)), "order of signatures")
    manifest = manifest_of(raw)
    need(all(time == manifest["source_date_epoch"] for _, time, _ in found), "time")
    need([name for name, _, _ in rest] == [part["name"] for part in manifest["parts"]], "files")
    for part, (_, _, data) in zip(manifest["parts"], rest):
        need(part["size"] == len(data) and part["sha256"] == hashlib.sha256(data).hexdigest(), "bytes")
    return hashlib.sha256(raw).hexdigest()


with tempfile.TemporaryDirectory() as directory:
    for path in sys.argv[2:]:
        with open(path, "rb") as file:
            content = file.read()
        try:
            print(path, "ok", verify(content, sys.argv[1], directory))
        except Refused as why:
            print(path, "refused:", why)

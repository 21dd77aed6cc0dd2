#!/usr/bin/env python3
"""A whole actor in Python, written from docs/formats.md ("Wire") alone: python_actor.py ENDPOINT [KEYS.json].

It pulls and verifies weights, full sets and deltas, and answers every grant with made-up tokens. Needs pyzmq. At the goodbye it prints
one JSON line of what it did and exits 0."""
import hashlib
import json
import os
import random
import struct
import sys
import time

import zmq

HELLO, WELCOME, HEARTBEAT, GOODBYE, REFUSE = 1, 2, 3, 4, 5
MANIFEST, PULL, CHUNK, LOADED, GRANT, ROLLOUT, ACK = 10, 11, 12, 13, 20, 21, 22
FORMATS = {"u8": "B", "u16": "H", "i32": "i", "u32": "I", "f32": "f", "u64": "Q", "f64": "d"}
WIDTH = {"F32": 4, "BF16": 2, "F8_E4M3": 1}
TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)


def crc32c(*parts):
    crc = 0xFFFFFFFF
    for part in parts:
        for byte in part:
            crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def encode(kind, header, *arrays):
    blobs = [struct.pack(f"<{len(values)}{FORMATS[dtype]}", *values) for dtype, values in arrays]
    if arrays:
        header = dict(header, arrays=[[dtype, len(values)] for dtype, values in arrays])
    text = json.dumps(header).encode()
    start = b"TMPR" + struct.pack("<HHI", 2, kind, len(text))
    return [start + struct.pack("<I", crc32c(start, text, *blobs)), text, *blobs]


def decode(frames):
    magic, version, kind, length, crc = struct.unpack("<4sHHII", frames[0])
    assert magic == b"TMPR" and version == 2 and length == len(frames[1]), "not a message"
    if sum(map(len, frames)) < 1 << 16:  # the checksum in Python takes a second for 4 MiB; weights have their SHA-256
        assert crc == crc32c(frames[0][:12], *frames[1:]), "a wrong checksum"
    header = json.loads(frames[1])
    arrays = []
    for (dtype, count), blob in zip(header.get("arrays", []), frames[2:], strict=True):
        arrays.append(blob if dtype == "u8" else struct.unpack(f"<{count}{FORMATS[dtype]}", blob))
    return kind, header, arrays


def apply_patch(data, patch, width):
    at = element = 0
    while at < len(patch):
        gap = shift = 0
        while True:
            byte = patch[at]
            at += 1
            gap |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        element += gap
        data[element * width:(element + 1) * width] = patch[at:at + width]
        element += 1
        at += width


class Actor:
    def __init__(self, endpoint, keys):
        self.socket = zmq.Context().socket(zmq.DEALER)
        if keys:
            own = json.load(open(keys))
            self.socket.curve_publickey, self.socket.curve_secretkey = own["public"].encode(), own["secret"].encode()
            self.socket.curve_serverkey = own["learner"].encode()
        self.socket.connect(endpoint)
        self.instance = f"{random.getrandbits(64):016x}"
        self.session, self.run, self.numerics = "0" * 16, "", []
        self.version = None          # loaded
        self.weights = bytearray()   # its bytes
        self.pulling = None
        self.waiting = []            # grants that name a later version
        self.outbox = {}
        self.done = {"rollouts": 0, "full": 0, "delta": 0, "acknowledged": 0, "versions": []}

    def send(self, kind, header, *arrays):
        self.socket.send_multipart(encode(kind, header, *arrays))

    def held(self):
        groups = {(grp, attempt) for grp, _, attempt in self.outbox}
        for grant, arrays in self.waiting:
            groups |= set(zip(arrays[0], arrays[1]))
        return ("u64", [g for g, _ in groups]), ("i32", [a for _, a in groups])

    def hello(self):
        self.send(HELLO, {"role": "actor", "name": "python", "instance": self.instance, "pid": os.getpid(), "temper_version": "python",
                          "numerics": self.numerics or ["canon-1/fp32/cache-fp32"], "rows": 64, "session": self.session, "run": self.run}, *self.held())

    def pull(self):
        p = self.pulling
        while p["asked"] < p["size"] and p["asked"] - len(p["got"]) < 4 << 20:
            length = min(1 << 20, p["size"] - p["asked"])
            self.send(PULL, {"version": p["version"], "offset": p["asked"], "length": length, "delta": p["delta"]})
            p["asked"] += length
        if len(p["got"]) == p["size"]:
            self.swap()

    def manifest(self, header, arrays):
        if header["session"] != self.session:
            return
        if header["version"] == self.version:
            return self.loaded()
        delta = header.get("base") is not None and header["base"] == self.version
        self.pulling = {"version": header["version"], "delta": delta, "tensors": json.loads(arrays[0]), "asked": 0, "got": bytearray(),
                        "size": header["delta_bytes"] if delta else header["bytes"]}
        self.pull()

    def swap(self):
        p, self.pulling = self.pulling, None
        weights = bytearray(self.weights) if p["delta"] else p["got"]
        for t in p["tensors"]:
            if p["delta"]:
                form, begin, end = t["delta"]
                piece = p["got"][begin:end]
                if form == 2:
                    weights[t["begin"]:t["end"]] = piece
                elif form == 1:
                    data = weights[t["begin"]:t["end"]]
                    apply_patch(data, piece, WIDTH[t["dtype"]])
                    weights[t["begin"]:t["end"]] = data
            assert hashlib.sha256(weights[t["begin"]:t["end"]]).hexdigest() == t["sha256"], t["name"]
        self.weights, self.version = weights, p["version"]
        self.done["delta" if p["delta"] else "full"] += 1
        self.loaded()
        waiting, self.waiting = self.waiting, []
        for header, arrays in waiting:
            self.grant(header, arrays)

    def loaded(self):
        self.send(LOADED, {"session": self.session, "version": self.version})

    def grant(self, header, arrays):
        if header["session"] != self.session:
            return
        if self.version is None or self.version < header["version"]:
            return self.waiting.append((header, arrays))
        groups, attempts, _, _, counts, samples, _ = arrays
        at = 0
        for grp, attempt, count in zip(groups, attempts, counts):
            for sample in samples[at:at + count]:
                n = min(3, header["max_new_tokens"])
                message = encode(ROLLOUT, {"session": self.session, "grp": grp, "sample": sample, "attempt": attempt, "finish": "length",
                                           "version": self.version}, ("i32", [(grp + sample + t) % 90 for t in range(n)]), ("f32", [-1.5] * n), ("u32", []),
                                 ("u16", []), ("i32", []))
                self.outbox[(grp, sample, attempt)] = message
                self.socket.send_multipart(message)
                self.done["rollouts"] += 1
            at += count
        if self.version not in self.done["versions"]:
            self.done["versions"].append(self.version)

    def handle(self, kind, header, arrays):
        if kind == WELCOME:
            if header["session"] != self.session:
                self.version, self.weights, self.outbox, self.waiting = None, bytearray(), {}, []
            self.session, self.run = header["session"], header["run"]
            if self.version is not None:
                self.loaded()
            for message in self.outbox.values():
                self.socket.send_multipart(message)
        elif kind == MANIFEST:
            self.manifest(header, arrays)
        elif kind == CHUNK:
            p = self.pulling
            if p and (header["version"], header["offset"], header.get("delta", False)) == (p["version"], len(p["got"]), p["delta"]):
                p["got"] += arrays[0]
                self.pull()
        elif kind == GRANT:
            self.grant(header, arrays)
        elif kind == ACK:
            for rollout in zip(*arrays):
                self.done["acknowledged"] += self.outbox.pop(rollout, None) is not None
        elif kind == REFUSE:
            print(f"refused: {header['code']}: {header['reason']}", file=sys.stderr)
            if header["code"] == "hello_first":
                self.hello()
            elif header["code"] == "not_welcome":
                sys.exit(2)
            elif header["code"] == "not_taken":
                self.outbox.pop((header["grp"], header["sample"], header["attempt"]), None)
            elif header["code"] == "bad_weights":
                self.version = None

    def serve(self):
        self.hello()
        beat = repeat = time.monotonic()
        while True:
            if self.socket.poll(100):
                kind, header, arrays = decode(self.socket.recv_multipart())
                if kind == GOODBYE:
                    self.send(GOODBYE, {"reason": "the learner said goodbye", "failed": False})
                    print(json.dumps(self.done))
                    time.sleep(0.1)
                    return 3 if header["failed"] else 0
                self.handle(kind, header, arrays)
            now = time.monotonic()
            if now - beat >= 1:
                beat = now
                if self.session == "0" * 16:
                    self.hello()
                else:
                    self.send(HEARTBEAT, {}, *self.held())
            if now - repeat >= 5:
                repeat = now
                for message in self.outbox.values():
                    self.socket.send_multipart(message)


if __name__ == "__main__":
    sys.exit(Actor(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None).serve())

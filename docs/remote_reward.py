"""A remote reward in Python (docs/rewards.md): python remote_reward.py tcp://127.0.0.1:5599"""
import json, struct, sys, zmq

TABLE = list(range(256))
for _ in range(8):
    TABLE = [c >> 1 ^ 0x82F63B78 * (c & 1) for c in TABLE]

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF

def score(prompt, completion, answer, row):  # a number, None, or {"score": 1.0, "part": 0.5}
    return float(answer is not None and answer in completion)

socket = zmq.Context().socket(zmq.ROUTER)
socket.bind(sys.argv[1])
while True:
    peer, _, header, body = socket.recv_multipart()
    group = json.loads(body)
    scores = [score(group["prompt"], s["completion"], group["answer"], group["row"]) for s in group["samples"]]
    reply = json.dumps({"id": json.loads(header)["id"], "scores": scores}).encode()
    start = struct.pack("<4sHHI", b"TMPR", 2, 33, len(reply))
    socket.send_multipart([peer, start + struct.pack("<I", crc32c(start + reply)), reply])

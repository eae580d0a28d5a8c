"""Has the command write topics with every codec, compacts one of each, and reads the files with kafka-python's parser.

    python3 .ci/kafka_python.py OTTLA_BINARY

Needs the packages kafka-python, lz4, zstandard and python-snappy. Exits with 1 if a record or a checksum differs.
"""

import glob
import json
import os
import subprocess
import sys
import tempfile

from kafka.record import MemoryRecords

CODECS = {"uncompressed": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
COUNT = 5000
KEYS = 300


def ottla(directory, *args, given=""):
    done = subprocess.run(
        [sys.argv[1], "-d", directory, *args], input=given.encode(), stdout=subprocess.PIPE, check=True
    )
    return done.stdout.decode()


def read(directory):
    """Gives the codecs of the batches of a partition, and its records as (offset, key, value)."""
    codecs, records = set(), []
    for path in sorted(glob.glob(os.path.join(directory, "*.log"))):
        with open(path, "rb") as file:
            batches = MemoryRecords(file.read())
        while batches.has_next():
            batch = batches.next_batch()
            assert batch.validate_crc(), f"{path}: the checksum of a batch does not hold"
            codecs.add(batch.compression_type)
            for record in batch:
                headers = [(key, value) for key, value in record.headers]
                assert headers == [("from", b"ottla")], headers
                records.append((record.offset, record.key.decode(), record.value.decode()))
        assert batches.valid_bytes() == batches.size_in_bytes(), f"{path}: bytes are left"
    return codecs, records


def main():
    with tempfile.TemporaryDirectory() as root:
        directory = os.path.join(root, "data")
        for codec, number in CODECS.items():
            sent = [(n, f"key {n % KEYS}", f"value {n} of {codec}, {'again ' * 10}") for n in range(COUNT)]
            lines = "".join(f"{key}:{value}\n" for _, key, value in sent)
            for topic, policy in [(f"kept-{codec}", "delete"), (f"compacted-{codec}", "compact")]:
                ottla(
                    directory, "topic", "create", topic, "-c", f"compression.type={codec}",
                    "-c", f"cleanup.policy={policy}", "-c", "segment.bytes=65536",
                )
                ottla(
                    directory, "produce", topic, "-K", ":", "-H", "from=ottla", "--linger-ms", "1000",
                    "--batch-bytes", "8192", given=lines,
                )
            codecs, records = read(os.path.join(directory, f"kept-{codec}-0"))
            assert codecs == {number}, (codec, codecs)
            assert records == sent, f"{codec}: {len(records)} records, or others than were sent"

            done = json.loads(ottla(directory, "compact", f"compacted-{codec}", "-o", "json"))
            codecs, records = read(os.path.join(directory, f"compacted-{codec}-0"))
            assert records == sent[-KEYS:], f"{codec}: {len(records)} records are left"
            assert (done["records_kept"], done["records_dropped"]) == (KEYS, COUNT - KEYS), done
            assert codecs == {number}, (codec, codecs)
        ottla(directory, "check")
        print(f"kafka-python read {len(CODECS)} codecs, {COUNT} records each, and what compaction left of them")


if __name__ == "__main__":
    main()

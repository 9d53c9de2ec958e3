#!/bin/sh
# Fetches the Kafka server that tests start, 43 MB of jars, into target/kafka. Needs Maven and Java 17 or later.
set -eu
cd "$(dirname "$0")/.."

for tool in java mvn; do
    if ! command -v "$tool" >/dev/null; then
        echo "error: install Java 17 or later and Maven: no $tool" >&2
        exit 1
    fi
done
cmp -s scripts/kafka_server.xml target/kafka/pom.xml && exit 0
mkdir -p target
new=$(mktemp -d target/kafka.XXXXXX)
trap 'rm -rf "$new"' EXIT
mvn --quiet --batch-mode --file scripts/kafka_server.xml dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$PWD/$new/lib"
cp scripts/kafka_server.xml "$new/pom.xml"
# Move it into place only when it is complete.
rm -rf target/kafka
mv "$new" target/kafka

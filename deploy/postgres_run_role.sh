#!/bin/sh
# Makes the role that the service runs as, once, when PostgreSQL's image makes its database (docker-compose.yml mounts it
# in /docker-entrypoint-initdb.d). What the role may do is granted by `artstore-grpc db upgrade --run-role artstore_run`.
set -eu
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" \
    --set=password="$(cat "$POSTGRES_RUN_PASSWORD_FILE")" <<'SQL'
CREATE ROLE artstore_run LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT PASSWORD :'password';
SQL

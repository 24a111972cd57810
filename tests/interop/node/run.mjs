// Clients that others wrote, against a running service: grpc-js with proto-loader and with grpc-health-check for gRPC,
// jose for the token. Usage: GRPC=host:port GATEWAY=url CLIENT_ID=... CLIENT_SECRET=... PROTOS=folder node run.mjs
import assert from "node:assert/strict";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { protoPath, service as healthService } from "grpc-health-check";
import { createRemoteJWKSet, jwtVerify } from "jose";

const { GRPC, GATEWAY, CLIENT_ID, CLIENT_SECRET, PROTOS, GOOGLEAPIS } = process.env;
const options = { keepCase: true, longs: Number, enums: String, includeDirs: [PROTOS, GOOGLEAPIS] };
const insecure = grpc.credentials.createInsecure();

function unary(client, method) {
  return promisify(client[method].bind(client));
}

async function token() {
  const loaded = await loader.load("artstore/identity/v1/token_service.proto", options);
  const { TokenService } = grpc.loadPackageDefinition(loaded).artstore.identity.v1;
  const client = new TokenService(GRPC, insecure);
  const request = { grant_type: "client_credentials", client_id: CLIENT_ID, client_secret: CLIENT_SECRET };
  const issued = await unary(client, "IssueToken")(request);
  const refused = await unary(client, "IssueToken")({ ...request, client_secret: "wrong" }).catch((error) => error);
  assert.equal(refused.code, grpc.status.UNAUTHENTICATED);
  client.close();
  return issued;
}

async function health() {
  const Health = grpc.makeClientConstructor(healthService, "grpc.health.v1.Health");
  const client = new Health(GRPC, insecure);
  for (const service of ["", "liveness", "readiness", "artstore.identity.v1.TokenService"]) {
    assert.equal((await unary(client, "check")({ service })).status, "SERVING");
  }
  const watch = client.watch({ service: "readiness" });
  const first = await new Promise((resolve, reject) => watch.once("data", resolve).once("error", reject));
  assert.equal(first.status, "SERVING");
  watch.on("error", () => {});
  watch.cancel();
  client.close();
}

const metadata = await (await fetch(`${GATEWAY}/.well-known/oauth-authorization-server`)).json();
const issued = await token();
const keys = createRemoteJWKSet(new URL(metadata.jwks_uri));
const { payload, protectedHeader } = await jwtVerify(issued.access_token, keys, {
  issuer: metadata.issuer,
  audience: "artstore",
  typ: "at+jwt",
  algorithms: ["RS256"],
  requiredClaims: ["client_id", "jti", "scope"],
});
assert.equal(payload.client_id, CLIENT_ID);
await health();
console.log(`grpc-js got a token, jose verified it (${protectedHeader.alg}), grpc-health-check got its answers.`);
assert.ok(protoPath);

// An example: gets an access token and asks the service for its health, with the stubs made from the protos.
//
//   ARTSTORE_TARGET=127.0.0.1:50051 ARTSTORE_CLIENT_ID=… ARTSTORE_CLIENT_SECRET=… npm run example
import { isIP } from "node:net";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { TokenService } from "../gen/artstore/identity/v1/token_service_pb.js";
import { ErrorInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import { Health, HealthCheckResponse_ServingStatus } from "../gen/health/v1/health_pb.js";

// A healthy service answers in milliseconds; a new secret's hash takes a quarter of a second.
const timeoutMs = 10_000;

async function run(): Promise<string> {
  const { ARTSTORE_TARGET: target, ARTSTORE_CLIENT_ID: clientId, ARTSTORE_CLIENT_SECRET: clientSecret } = process.env;
  if (!target || !clientId || !clientSecret) {
    throw new Error("set ARTSTORE_TARGET, ARTSTORE_CLIENT_ID and ARTSTORE_CLIENT_SECRET");
  }
  const transport = createGrpcTransport({ baseUrl: url(target) });

  const issued = await createClient(TokenService, transport).issueToken(
    { grantType: "client_credentials", clientId, clientSecret },
    { timeoutMs },
  );
  if (issued.accessToken === "" || issued.tokenType !== "Bearer" || issued.expiresIn <= 0) {
    throw new Error("that is not a bearer token that lives");
  }

  const answer = await createClient(Health, transport).check({ service: TokenService.typeName }, { timeoutMs });
  const status = HealthCheckResponse_ServingStatus[answer.status];
  return `A ${issued.tokenType} token for ${issued.expiresIn} s; TokenService is ${status}.`;
}

// TLS, since a secret goes over it; plain text only where it doesn't leave the machine.
function url(target: string): string {
  const { hostname } = new URL(`http://${target}`);
  const loopback = hostname === "localhost" || hostname === "[::1]" || (isIP(hostname) === 4 && hostname.startsWith("127."));
  return `${loopback ? "http" : "https"}://${target}`;
}

// What the service says of a refusal: its code, the reason to decide by, and a sentence for people.
function explained(error: unknown): string {
  if (!(error instanceof ConnectError)) {
    return error instanceof Error ? error.message : String(error);
  }
  const reason = error.findDetails(ErrorInfoSchema)[0]?.reason ?? "no reason";
  return `${Code[error.code]} (${reason}): ${error.rawMessage}`;
}

try {
  console.log(await run());
} catch (error) {
  console.error(explained(error));
  process.exitCode = 1;
}

// An example: gets an access token and asks the service for its health, with the stubs made from the protos.
//
//	ARTSTORE_TARGET=127.0.0.1:50051 ARTSTORE_CLIENT_ID=… ARTSTORE_CLIENT_SECRET=… go run ./example
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	identity "artstore.internal/identity/gen/artstore/identity/v1"
)

// A healthy service answers in milliseconds; a new secret's hash takes a quarter of a second.
const timeout = 10 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, explained(err))
		os.Exit(1)
	}
}

func run() error {
	target, id, secret := os.Getenv("ARTSTORE_TARGET"), os.Getenv("ARTSTORE_CLIENT_ID"), os.Getenv("ARTSTORE_CLIENT_SECRET")
	if target == "" || id == "" || secret == "" {
		return errors.New("set ARTSTORE_TARGET, ARTSTORE_CLIENT_ID and ARTSTORE_CLIENT_SECRET")
	}
	channel, err := grpc.NewClient(target, grpc.WithTransportCredentials(transport(target)))
	if err != nil {
		return err
	}
	defer channel.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()

	issued, err := identity.NewTokenServiceClient(channel).IssueToken(ctx, &identity.IssueTokenRequest{
		GrantType:    "client_credentials",
		ClientId:     id,
		ClientSecret: secret,
	})
	if err != nil {
		return err
	}
	if issued.GetAccessToken() == "" || issued.GetTokenType() != "Bearer" || issued.GetExpiresIn() <= 0 {
		return errors.New("that is not a bearer token that lives")
	}

	answer, err := health.NewHealthClient(channel).Check(ctx, &health.HealthCheckRequest{
		Service: identity.TokenService_ServiceDesc.ServiceName,
	})
	if err != nil {
		return err
	}
	fmt.Printf("A %s token for %d s; TokenService is %s.\n", issued.GetTokenType(), issued.GetExpiresIn(), answer.GetStatus())
	return nil
}

// transport is TLS, since a secret goes over it; plain text only where it doesn't leave the machine.
func transport(target string) credentials.TransportCredentials {
	host, _, _ := net.SplitHostPort(target)
	if address := net.ParseIP(host); host == "localhost" || address.IsLoopback() {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(nil)
}

// explained is what the service says of a refusal: its code, the reason to decide by, and a sentence for people.
func explained(err error) string {
	refused, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	reason := "no reason"
	for _, detail := range refused.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			reason = info.GetReason()
		}
	}
	return fmt.Sprintf("%s (%s): %s", refused.Code(), reason, refused.Message())
}

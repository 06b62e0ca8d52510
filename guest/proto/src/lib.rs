//! The agent's control protocol: protobuf, gRPC and vsock port numbers.

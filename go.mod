module github.com/pyreceptor/pyreceptor

go 1.26.0

require github.com/minio/highwayhash v1.0.4

require (
	github.com/gorilla/websocket v1.5.3 // indirect
	github.com/quic-go/quic-go v0.65.0 // indirect
	golang.org/x/crypto v0.54.0 // indirect
	golang.org/x/net v0.56.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)

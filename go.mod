module github.com/pyreceptor/pyreceptor

go 1.26.0

require github.com/minio/highwayhash v1.0.4

require golang.org/x/sys v0.49.0 // indirect

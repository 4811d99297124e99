// The linters, apart from the other tools because few need them and they need
// many modules: go tool -modfile=tools/lint/go.mod golangci-lint run
module bitnet1/tools/lint

go 1.26.0

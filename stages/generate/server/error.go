package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// apiError is an error in OpenAI's shape. Its clients read Param, the parameter that was wrong, and Code.
type apiError struct {
	status int
	retry  time.Duration // after which trying again makes sense; 0: never

	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func (e *apiError) Error() string { return e.Message }

// Kinds of errors, in OpenAI's words.
const (
	typeInvalid  = "invalid_request_error"
	typeServer   = "server_error"
	typeOverload = "overloaded_error"
)

// invalid is the error of a request whose parameter param is wrong; param may be empty.
func invalid(param, format string, args ...any) *apiError {
	e := &apiError{status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...), Type: typeInvalid}
	if param != "" {
		e.Param = &param
		e.Message = param + ": " + e.Message
	}
	return e
}

// coded gives the error a code, and a status other than 400.
func (e *apiError) coded(status int, code string) *apiError {
	e.status, e.Code = status, &code
	return e
}

// overloaded is the error of a request for which there is no room now.
func overloaded(retry time.Duration, message string) *apiError {
	return &apiError{status: http.StatusServiceUnavailable, retry: retry, Message: message, Type: typeOverload}
}

// write answers a request with the error.
func (e *apiError) write(w http.ResponseWriter) {
	if e.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(max(e.retry, time.Second)/time.Second)))
	}
	writeJSON(w, e.status, e.body())
}

func (e *apiError) body() any {
	return struct {
		Error *apiError `json:"error"`
	}{e}
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil { // no value of a response can have one
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

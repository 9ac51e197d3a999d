// A receiver of registry notifications, built on distribution's own package and therefore on the types that its
// consumers use. It rejects requests that distribution would not send (another media type, an unknown field) and prints
// one line for each accepted event.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"

	"github.com/distribution/distribution/v3/notifications"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println("listening", listener.Addr().(*net.TCPAddr).Port)
	panic(http.Serve(listener, http.HandlerFunc(receive)))
}

func receive(response http.ResponseWriter, request *http.Request) {
	if request.Header.Get("Content-Type") != notifications.EventsMediaType {
		http.Error(response, "not "+notifications.EventsMediaType, http.StatusUnsupportedMediaType)
		return
	}
	decoder := json.NewDecoder(http.MaxBytesReader(response, request.Body, 1<<20))
	decoder.DisallowUnknownFields()
	var envelope struct {
		Events []notifications.Event `json:"events"`
	}
	if err := decoder.Decode(&envelope); err != nil {
		fmt.Println("refused", err)
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	for _, event := range envelope.Events {
		if event.ID == "" || event.Timestamp.IsZero() {
			http.Error(response, "an event without id or time", http.StatusBadRequest)
			return
		}
		line, _ := json.Marshal(map[string]any{
			"id": event.ID, "action": event.Action, "repository": event.Target.Repository, "tag": event.Target.Tag,
			"digest": event.Target.Digest, "mediaType": event.Target.MediaType, "size": event.Target.Size,
			"url": event.Target.URL, "method": event.Request.Method, "userAgent": event.Request.UserAgent,
			"from": event.Target.FromRepository, "instance": event.Source.InstanceID,
		})
		fmt.Println(string(line))
	}
}

package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"strings"
	"time"
)

// The profiles are those of net/http/pprof, at the same paths, with debug=, gc=1 and seconds= where they record. That
// package also computes differences of two profiles and looks up symbols, which go tool pprof does by itself, and is
// larger than all the rest of this one.
const (
	cpuTime     = 30 * time.Second
	traceTime   = time.Second
	maxRecorded = 5 * time.Minute
)

// profiles lists what there is.
func profiles(w http.ResponseWriter, _ *http.Request) {
	var text strings.Builder
	for _, p := range pprof.Profiles() {
		fmt.Fprintf(&text, "%s?debug=1\t%d\n", p.Name(), p.Count())
	}
	text.WriteString("cmdline\nprofile?seconds=30\ntrace?seconds=1")
	plain(w, http.StatusOK, text.String())
}

func profile(w http.ResponseWriter, r *http.Request) {
	switch name := r.PathValue("name"); name {
	case "cmdline":
		plain(w, http.StatusOK, strings.Join(os.Args, "\x00"))
	case "profile":
		record(w, r, cpuTime, pprof.StartCPUProfile, pprof.StopCPUProfile)
	case "trace":
		record(w, r, traceTime, trace.Start, trace.Stop)
	default:
		p := pprof.Lookup(name)
		if p == nil {
			plain(w, http.StatusNotFound, "there is no profile "+strconv.Quote(name)+"; /debug/pprof/ lists them")
			return
		}
		if r.FormValue("gc") == "1" {
			runtime.GC()
		}
		debug, _ := strconv.Atoi(r.FormValue("debug"))
		describe(w, debug != 0, name)
		_ = p.WriteTo(w, debug)
	}
}

// record sends what start writes until the time is over or the client goes.
func record(w http.ResponseWriter, r *http.Request, usual time.Duration, start func(io.Writer) error, stop func()) {
	length, err := recordingTime(r.FormValue("seconds"), usual)
	if err != nil {
		plain(w, http.StatusBadRequest, err.Error())
		return
	}
	describe(w, false, r.PathValue("name"))
	if err := start(w); err != nil {
		w.Header().Del("Content-Disposition")
		plain(w, http.StatusInternalServerError, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), length)
	defer cancel()
	<-ctx.Done()
	stop()
}

func recordingTime(seconds string, usual time.Duration) (time.Duration, error) {
	if seconds == "" {
		return usual, nil
	}
	n, err := strconv.ParseFloat(seconds, 64)
	if err != nil || !(n > 0) || n > maxRecorded.Seconds() {
		return 0, errors.New("seconds=" + strconv.Quote(seconds) + ": want more than 0 and at most " + strconv.Itoa(int(maxRecorded.Seconds())))
	}
	return time.Duration(n * float64(time.Second)), nil
}

func describe(w http.ResponseWriter, text bool, name string) {
	if text {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
}

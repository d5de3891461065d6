package control

import "errors"

var (
	errConfigParameters  = errors.New("config command does not take parameters")
	errMetricsParameters = errors.New("metrics command does not take parameters")
)

// config tells the configuration that the program runs.
func (s *session) config(req request) (any, error) {
	if req.params != "" {
		return nil, errConfigParameters
	}
	return s.srv.config(), nil
}

// metricsType is the format of the text, as HTTP names it.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// metrics tells the numbers of the node in the Prometheus format, in one line.
func (s *session) metrics(req request) (any, error) {
	if req.params != "" {
		return nil, errMetricsParameters
	}
	return map[string]any{"content_type": metricsType, "text": s.srv.metrics()}, nil
}

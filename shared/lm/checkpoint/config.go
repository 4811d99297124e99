package checkpoint

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"bitnet1/shared/lm/model"
)

// ParseConfig reads a configuration as the asdict of the PyTorch reference writes it. Options of v77 may be left out
// where they are off; every other key must be there. An unknown key is an error, because a model with an unknown
// feature would compute something else.
func ParseConfig(text []byte) (model.Config, error) {
	var c model.Config
	var given map[string]json.RawMessage
	if err := json.Unmarshal(text, &given); err != nil {
		return c, fmt.Errorf("model configuration: %w", err)
	}
	if err := refuseNull("model configuration", text); err != nil {
		return c, err
	}
	known := map[string]bool{}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[model.Config]()) {
		key, option, _ := strings.Cut(field.Tag.Get("json"), ",")
		known[key] = true
		if _, ok := given[key]; !ok && option != "omitempty" {
			return c, fmt.Errorf("model configuration: key %q is missing", key)
		}
	}
	for key := range given {
		if !known[key] {
			return c, fmt.Errorf("model configuration: key %q is unknown: correct it if it is misspelt; if it is an option of "+
				"a later version, update this program", key)
		}
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("model configuration: %w", err)
	}
	return c, c.Validate()
}

// refuseNull reports a null in the JSON text: encoding/json would read it as a default.
func refuseNull(what string, text []byte) error {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if key, ok := nullIn(value); ok {
		return fmt.Errorf("%s: %s has no value (null)", what, strings.TrimPrefix(key, "."))
	}
	return nil
}

// nullIn is the path of a null: keys joined by dots.
func nullIn(value any) (path string, found bool) {
	switch v := value.(type) {
	case nil:
		return "", true
	case map[string]any:
		for key, item := range v {
			if path, found := nullIn(item); found {
				return "." + key + path, true
			}
		}
	case []any:
		for i, item := range v {
			if path, found := nullIn(item); found {
				return fmt.Sprintf("[%d]%s", i, path), true
			}
		}
	}
	return "", false
}

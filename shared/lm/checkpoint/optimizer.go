package checkpoint

import (
	"fmt"
	"strings"

	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/safetensors"
)

// What the optimizer keeps is named as in PyTorch's optimizers, with the parameter's name behind.
const (
	meanPrefix    = "exp_avg."
	squarePrefix  = "exp_avg_sq."
	masterPrefix  = "master."
	counterPrefix = "counter." // of weights that train by flipping
	updatesName   = "updates"
)

// OptimizerTensors lists the optimizer's state as tensors of a State. They read from s when they are written.
func OptimizerTensors(s model.State) []safetensors.Tensor {
	list := []safetensors.Tensor{{Name: updatesName, Data: []int64{int64(s.Updates)}}}
	for _, group := range []struct {
		prefix     string
		parameters []model.Parameter
	}{{meanPrefix, s.ExpAvg}, {squarePrefix, s.ExpAvgSq}, {masterPrefix, s.Masters}} {
		list = append(list, ParameterTensors(group.prefix, group.parameters)...)
	}
	for _, c := range s.Counters {
		list = append(list, safetensors.Tensor{Name: counterPrefix + c.Name, Shape: c.Shape, Data: c.Data})
	}
	return list
}

// ParameterTensors lists parameters as tensors of a State, named prefix and a parameter's name: the inverse of
// State.Parameters. They read the parameters when they are written.
func ParameterTensors(prefix string, parameters []model.Parameter) []safetensors.Tensor {
	var list []safetensors.Tensor
	for _, p := range parameters {
		list = append(list, finite(prefix+p.Name, p))
	}
	return list
}

// Optimizer picks the optimizer's state out of s.Tensors; other tensors are left alone. Whether it is complete is for
// the model to say that it is restored into.
func (s State) Optimizer() (model.State, error) {
	out := model.State{Updates: -1}
	for _, t := range s.Tensors {
		if data, ok := t.Data.([]int8); ok && strings.HasPrefix(t.Name, counterPrefix) {
			out.Counters = append(out.Counters, model.Counter{Name: strings.TrimPrefix(t.Name, counterPrefix),
				Shape: t.Shape, Data: data})
		}
		if n, ok := t.Data.([]int64); ok && t.Name == updatesName && len(n) == 1 && n[0] >= 0 {
			out.Updates = int(n[0])
		}
	}
	if out.Updates < 0 {
		return out, fmt.Errorf("training state: tensor %q, the number of updates, is missing or no count", updatesName)
	}
	var err error
	for prefix, list := range map[string]*[]model.Parameter{
		meanPrefix: &out.ExpAvg, squarePrefix: &out.ExpAvgSq, masterPrefix: &out.Masters,
	} {
		if *list, err = s.Parameters(prefix); err != nil {
			return out, err
		}
	}
	return out, nil
}

// Parameters picks the tensors out of s.Tensors that are named prefix and a parameter's name.
func (s State) Parameters(prefix string) ([]model.Parameter, error) {
	var list []model.Parameter
	for _, t := range s.Tensors {
		name, ok := strings.CutPrefix(t.Name, prefix)
		if !ok {
			continue
		}
		data, ok := t.Data.([]float32)
		if !ok {
			return nil, fmt.Errorf("training state: tensor %q holds %T, want float32", t.Name, t.Data)
		}
		list = append(list, model.Parameter{Name: name, Shape: t.Shape, Data: data})
	}
	return list, nil
}

package checkpoint

import (
	"fmt"
	"strings"

	"bitnet1/shared/lm/model"
	"bitnet1/shared/lm/safetensors"
)

// The tensors of the optimizer have the names of PyTorch's optimizers, followed by the name of the parameter.
const (
	meanPrefix    = "exp_avg."
	squarePrefix  = "exp_avg_sq."
	muonPrefix    = "momentum."
	masterPrefix  = "master."
	counterPrefix = "counter." // of weights that train by flipping
	updatesName   = "updates"
)

// OptimizerTensors lists the state of the optimizer as tensors of a State. The values are read from s when the tensors
// are written.
func OptimizerTensors(s model.State) []safetensors.Tensor {
	list := []safetensors.Tensor{{Name: updatesName, Data: []int64{int64(s.Updates)}}}
	for _, group := range []struct {
		prefix     string
		parameters []model.Parameter
	}{{meanPrefix, s.ExpAvg}, {squarePrefix, s.ExpAvgSq}, {muonPrefix, s.Momentum}, {masterPrefix, s.Masters}} {
		list = append(list, ParameterTensors(group.prefix, group.parameters)...)
	}
	for _, c := range s.Counters {
		list = append(list, safetensors.Tensor{Name: counterPrefix + c.Name, Shape: c.Shape, Data: c.Data})
	}
	return list
}

// ParameterTensors lists parameters as tensors of a State, whose names are prefix and the name of the parameter. It is
// the inverse of State.Parameters. The values are read when the tensors are written.
func ParameterTensors(prefix string, parameters []model.Parameter) []safetensors.Tensor {
	var list []safetensors.Tensor
	for _, p := range parameters {
		list = append(list, finite(prefix+p.Name, p))
	}
	return list
}

// TrainedBy says, by the names of s.Tensors, whether Muon trained weights, and whether weights trained by flipping.
func (s State) TrainedBy() (muon, flips bool) {
	for _, t := range s.Tensors {
		muon = muon || strings.HasPrefix(t.Name, muonPrefix)
		flips = flips || strings.HasPrefix(t.Name, counterPrefix)
	}
	return muon, flips
}

// Optimizer returns the state of the optimizer among s.Tensors. The model checks that it is complete.
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
		meanPrefix: &out.ExpAvg, squarePrefix: &out.ExpAvgSq, muonPrefix: &out.Momentum, masterPrefix: &out.Masters,
	} {
		if *list, err = s.Parameters(prefix); err != nil {
			return out, err
		}
	}
	return out, nil
}

// Parameters returns the tensors of s whose names begin with prefix, as parameters.
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

package checkpoint

import (
	"bitnet1/kernels"
	"bitnet1/shared/model"
)

// Inference loads m onto a device, to compute batch sequences of seq tokens together (0: the configuration's), and returns
// it with the settings it is meant to be run with.
func (m Model) Inference(dev kernels.Device, batch, seq int) (*model.Model, model.Settings, error) {
	loaded, err := model.New(m.Config, dev, model.Options{Batch: batch, Seq: seq, ScaleBits: 32, Inference: true, Bonsai: m.Mix < 1})
	if err != nil {
		return nil, model.Settings{}, err
	}
	return loaded, model.Settings{Gamma: m.Gamma, Mix: m.Mix}, loaded.Load(m.Parameters)
}

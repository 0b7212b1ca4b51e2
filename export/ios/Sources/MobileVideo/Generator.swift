import Foundation
import Tokenizers

/// The loop from a prompt to frames, as export/app/runtime.py has it.
public struct Generator: Sendable {
    public let manifest: Manifest
    private let clip: Manifest.Clip
    private let networks: any Networks
    private let tokenizer: any Tokenizer

    public init(folder: URL, manifest: Manifest, clip: Manifest.Clip, networks: any Networks) async throws {
        self.manifest = manifest
        self.clip = clip
        self.networks = networks
        tokenizer = try await AutoTokenizer.from(modelFolder: folder)
    }

    /// Frames [t, 3, h, w] in manifest.pixels, one latent frame's after the other.
    public func generate(_ prompt: String, noise: [Float], show: (Tensor) async -> Void) async throws {
        let tokens = padded(tokenizer.encode(text: prompt).map { Int32($0) })
        var text = try await networks.call("text", tokens)
        text["text_mask"] = tokens["text_mask"]
        await networks.release("text")
        let latents = try await denoise(text, noise)
        await networks.release("dit")
        try await decode(latents, show)
    }

    /// Ids, padded, and their mask. Of too many the first are kept, and the closing one.
    func padded(_ ids: [Int32]) -> Tensors {
        let text = manifest.text
        let kept = ids.count > text.tokens ? ids.prefix(text.tokens - 1) + [text.closingID] : ids[...]
        let padding = text.tokens - kept.count
        let padded = kept.map { Float($0) } + [Float](repeating: Float(text.padID), count: padding)
        let mask = [Float](repeating: 1, count: kept.count) + [Float](repeating: 0, count: padding)
        return [
            "ids": Tensor(shape: [1, text.tokens], values: padded),
            "text_mask": Tensor(shape: [1, 1, 1, text.tokens], values: mask),
        ]
    }

    /// Euler's steps from noise to latents [c, s], in float32 between the calls. A step may call a function of its own,
    /// which takes outputs of the steps before.
    private func denoise(_ text: Tensors, _ noise: [Float]) async throws -> [Float] {
        let chunks = networks.parts.filter { $0.hasPrefix("dit") }.sorted { ($0.count, $0) < ($1.count, $1) }
        let channels = clip.latentShape[3]
        var latents = noise.map { $0 * manifest.sampler.noiseScale }
        var held: Tensors = [:]
        for step in 0..<manifest.sampler.steps {
            let features = clip.timeFeatures[step]
            let function = clip.stepFunctions?[step]
            var tensors = text.merging(held) { $1 }
            tensors["latents"] = Tensor(shape: [1, channels, 1, latents.count / channels], values: latents)
            tensors["time_features"] = Tensor(shape: [1, features.count, 1, 1], values: features)
            for chunk in chunks {
                tensors.merge(try await networks.call(chunk, tensors, function: function)) { $1 }
            }
            held.merge(past(tensors)) { $1 }
            guard let velocity = tensors["velocity"] else { throw NetworkError.missingFeature("velocity") }
            let length = clip.times[step + 1] - clip.times[step]
            latents = zip(latents, velocity.values).map { $0 + length * $1 }
        }
        return latents
    }

    /// Frames of each latent frame: a call's outputs kept_NAME are past_NAME of the next. Or all at once, by `vae`.
    private func decode(_ latents: [Float], _ show: (Tensor) async -> Void) async throws {
        let whole = networks.parts.contains("vae")
        let count = clip.latentShape[0]
        let length = whole ? count : 1
        let shape = [length, clip.latentShape[3], clip.latentShape[1], clip.latentShape[2]]
        var inputs: Tensors = [:]
        for start in stride(from: 0, to: count, by: length) {
            let values = (start..<start + length).flatMap { frame(latents, $0) }
            inputs["latents"] = Tensor(shape: shape, values: values)
            let outputs = try await networks.call(whole ? "vae" : start == 0 ? "vae_first" : "vae_next", inputs)
            guard let video = outputs["video"] else { throw NetworkError.missingFeature("video") }
            await show(video)
            inputs = past(outputs)
        }
    }

    /// A latent frame [c, h, w], not normalised.
    private func frame(_ latents: [Float], _ index: Int) -> [Float] {
        let positions = clip.latentShape[1] * clip.latentShape[2]
        let all = clip.latentShape[0] * positions
        return (0..<clip.latentShape[3]).flatMap { channel in
            (0..<positions).map { position in
                let value = latents[channel * all + index * positions + position]
                return value * manifest.latents.std[channel] + manifest.latents.mean[channel]
            }
        }
    }
}
